"""Ground. The section `identify:` of a config: whether faces get embeddings, by which people can be told apart.

Off by default, and then no setting of it is part of a release: names, tables and speed are as without it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from featray.config_section import Section

IDENTIFY_EPOCH: Final = 1
"""Raised when the code itself changes which faces get an embedding, or what it is."""


class IdentifyConfig(Section):
    """Embeddings: which faces get one."""

    enabled: bool = False
    """Whether a run writes the table `embeddings`. It makes another release."""
    accept_biometric: bool = False
    """Has to be true where `enabled` is: whoever sets it says that there is a ground to process biometric data."""
    embedder: Literal["face-api"] = "face-api"
    """`face-api` is the 128-number network of the npm package @vladmandic/face-api, under the MIT licence."""
    every_s: Annotated[float, Field(ge=0.04, le=3600)] = 1.0
    """Faces of one frame in so many seconds get one, and those of frames in which a shot begins or more faces are seen
    than in the frame before: a face changes slowly, and a track's embeddings are averaged."""
    min_face_px: Annotated[float, Field(ge=1)] = 40
    """Shorter side of the box. An aligned face has some 100 px; below 40 most of what is shown is interpolation."""
    min_in_frame: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the crop inside the frame: what is beyond its border is mirrored, and no face."""
    max_turn: Annotated[float, Field(gt=0, le=2)] = 0.4
    """How far the nose tip is beside the middle of the eyes, in distances of the eyes, by the five landmarks: 0 is
    frontal, 0.4 about 40 degrees, from which on one eye begins to disappear."""

    @model_validator(mode="after")
    def _is_accepted(self) -> IdentifyConfig:
        if self.enabled and not self.accept_biometric:
            raise ValueError(
                "accept_biometric must be true: embeddings identify people, so they are biometric data, which the GDPR "
                "(article 9) and similar laws forbid to process without a ground such as explicit consent. Set it if "
                "you have one for everyone in these videos, or leave identify.enabled off"
            )
        return self

    @property
    def every_us(self) -> int:
        """The cadence, in microseconds."""
        return round(self.every_s * 1e6)

    def result_settings(self, embedder_sha256: str) -> dict[str, Any]:
        """Return what decides the rows of `embeddings`, as plain data."""
        return {
            "epoch": IDENTIFY_EPOCH,
            "embedder_sha256": embedder_sha256,
            **self.model_dump(mode="json", exclude={"enabled", "accept_biometric"}),
        }
