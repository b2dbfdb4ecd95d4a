"""Ground. The section `identify:` of a config: face embeddings, which distinguish people.

Off by default. While it is off, its settings are not part of a release, and names, tables and speed are unaffected.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from featray.config_section import Section

IDENTIFY_EPOCH: Final = 1
"""Raise this when a code change alters which faces get an embedding, or its values."""


class IdentifyConfig(Section):
    """Face embeddings, and which faces get one."""

    enabled: bool = False
    """Whether a run writes the table `embeddings`. Enabling it makes another release."""
    accept_biometric: bool = False
    """Must be true if `enabled` is: by setting it you state that you have a legal basis to process biometric data."""
    embedder: Literal["face-api"] = "face-api"
    """`face-api` is the 128-number network of the npm package @vladmandic/face-api, under the MIT licence."""
    every_s: Annotated[float, Field(ge=0.04, le=3600)] = 1.0
    """Embed the faces of one frame in this many seconds, and those of frames in which a shot begins or more faces
    appear than in the frame before. Faces change slowly, and a track's embeddings are averaged."""
    min_face_px: Annotated[float, Field(ge=1)] = 40
    """Minimum shorter side of the box. An aligned face has about 100 px; below 40 px most of it is interpolation."""
    min_in_frame: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Minimum share of the crop inside the frame; the rest is filled by mirroring and shows no face."""
    max_turn: Annotated[float, Field(gt=0, le=2)] = 0.4
    """Maximum horizontal offset of the nose tip from the midpoint of the eyes, in eye distances, from the five
    landmarks: 0 is frontal, 0.4 is about 40 degrees, where one eye begins to disappear."""

    @model_validator(mode="after")
    def _is_accepted(self) -> IdentifyConfig:
        if self.enabled and not self.accept_biometric:
            raise ValueError(
                "accept_biometric must be true: embeddings identify people, so they are biometric data, which the GDPR "
                "(article 9) and similar laws forbid processing without a legal basis such as explicit consent. Set it "
                "if you have one for everyone in these videos, or leave identify.enabled off"
            )
        return self

    @property
    def every_us(self) -> int:
        """Return `every_s` in microseconds."""
        return round(self.every_s * 1e6)

    def result_settings(self, embedder_sha256: str) -> dict[str, Any]:
        """Return the settings that change the rows of `embeddings`, as plain data."""
        return {
            "epoch": IDENTIFY_EPOCH,
            "embedder_sha256": embedder_sha256,
            **self.model_dump(mode="json", exclude={"enabled", "accept_biometric"}),
        }
