"""Ground. The section `derive:` of a config: what becomes of faces in `tracks` and `events`.

Nothing here changes a release: derived rows are made from published ones, under a partition of their own.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from featray.config_section import Section
from featray.names import AU_NAMES_20, EMOTION_NAMES_7

DERIVE_EPOCH: Final = 1
"""Raised when the code itself changes derived rows for the same settings, so that they are made again."""

Seconds = Annotated[float, Field(ge=0, le=3600)]

KINDS: Final = (
    *AU_NAMES_20,
    "blink",
    "smile",
    *(f"emotion_{name}" for name in EMOTION_NAMES_7 if name != "neutral"),
    "gaze_away",
    "nod",
    "shake",
)
"""Kinds of events that there always are. `neutral` is what the others are told from, and no event."""


class EpisodeConfig(Section):
    """When a signal counts as up, and for how long it has to be."""

    on_at: float
    """An episode reaches this somewhere. (YAML reads a bare `on` as true.)"""
    off_at: float
    """And stays at this or above all the time: one threshold alone would cut a noisy episode into ten."""
    least_s: Seconds
    """Shorter ones are dropped. An episode lasts as long as its samples stand for."""
    merge_s: Seconds
    """Two with less time than this between them are one."""
    relative: bool = False
    """Whether the thresholds count from the track's baseline; of action units only."""

    @model_validator(mode="after")
    def _off_is_below(self) -> EpisodeConfig:
        if self.off_at > self.on_at:
            raise ValueError(f"off_at ({self.off_at:g}) is above on_at ({self.on_at:g}); an episode could never begin")
        return self


class EventConfig(EpisodeConfig):
    """A kind of event of your own."""

    name: Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_]{0,63}$")]
    """What `events.kind` says; no kind of featray's own."""
    expression: Annotated[str, Field(min_length=1, max_length=1000)]
    """Arithmetic over the columns of `faces` and `blendshapes`, such as `(AU12 + AU25) / 2` or
    `max(mouthSmileLeft, mouthSmileRight)`: numbers, `+ - * / **`, comparisons (1 or 0), `and or not`, and
    `abs min max sqrt exp log`."""


class BlinkConfig(Section):
    """Thresholds of a blink, per eye, on the signals `eyeBlinkLeft` and `eyeBlinkRight`, else on AU43."""

    rise: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Above the track's own median, which is its open eye: lids and glasses differ more than blinks do. It stays above
    half of that. MediaPipe's open eyes lie about 0.1, closed ones at 0.5 and more."""
    noise: Annotated[float, Field(ge=0, le=20)] = 6.0
    """The rise is at least so many median absolute deviations of the track (6 are 4 standard deviations of noise)."""
    most_s: Annotated[float, Field(gt=0, le=10)] = 0.5
    """A closure that lasts longer is none: blinks take 0.1 to 0.4 s (Stern, Walrath and Goldstein, Psychophysiology
    21, 1984); from 0.5 s on closures count as microsleeps (Caffier, Erdmann and Ullsperger, Eur J Appl Physiol 89,
    2003)."""
    least_faces_per_s: Annotated[float, Field(gt=0, le=1000)] = 15.0
    """Where a track has fewer, blinks are not looked for and their count is null: with less than two samples in a blink
    of 0.15 s most peaks fall between samples."""


class MovementConfig(Section):
    """Thresholds of a nod (on `pose_pitch`) and a shake of the head (on `pose_yaw`)."""

    least_rad: Annotated[float, Field(gt=0, le=1.5)] = 0.035
    """Amplitude of each swing, 2 degrees: what moves less is posture, speech and the network's noise."""
    low_hz: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Lower end of the band; see `high_hz`."""
    high_hz: Annotated[float, Field(gt=0, le=60)] = 5.0
    """The band: head movements in conversation have 0.2 to 1.8 Hz (slow, posture among them), 1.8 to 3.7 Hz (ordinary)
    and more (rapid), by Hadar, Steiner, Grant and Rose, Human Movement Science 2, 1983."""
    least_swings: Annotated[int, Field(ge=2, le=20)] = 3
    """Swings to and fro, one after the other: two are what turning the head once looks like in the band."""
    least_faces_per_s: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Where a track has fewer, they are not looked for: two samples a swing at the middle of the band."""

    @model_validator(mode="after")
    def _is_a_band(self) -> MovementConfig:
        if self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz ({self.low_hz:g}) is not below high_hz ({self.high_hz:g})")
        return self


class NeutralConfig(Section):
    """Where faces are at rest, and whose they are: columns of the manifest that named the videos, or path fields."""

    marked_by: Annotated[str, Field(min_length=1, max_length=200)]
    """The column that marks. Without `value` its text says which part of the video is neutral: `yes`, `true` or `1` for
    all of it; nothing, `no`, `false` or `0` for none; or spans in seconds of presentation time, `2.5-10; 60-65`."""
    value: str | None = None
    """The text with which the column marks a whole video, such as `rest` of a column `condition`."""
    key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The column that says whose neutral it is, such as `participant`: it holds for every video with the same text.
    Without one, each video has its own, which has to be marked by spans."""


class DeriveConfig(Section):
    """How `tracks` and `events` are made from published rows."""

    enabled: bool = True
    """Whether `featray run` makes them as it publishes; `featray derive` does it for what is there."""
    gap_s: Annotated[float, Field(gt=0, le=3600)] = 0.5
    """Nothing is smoothed, averaged or joined over a step that is longer, and longer than three median steps of the
    track. An onset takes half a second: over less, a signal cannot have gone and come back unseen."""
    smooth_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time constant of the filter before events are looked for. Off: two thresholds and a least duration keep noise out
    already, and a filter lowers what is short. OpenFace averages 3 frames, which is about 0.03 here."""
    baseline: Literal["none", "median", "p10", "neutral", "person"] = "median"
    """What each action unit is in a track when nothing happens: the median, as OpenFace takes it (Baltrusaitis, Mahmoud
    and Robinson, FERA 2015); the 10th percentile, for recordings in which something happens most of the time; what it
    is where the same person was recorded at rest, see `neutral`; or the median over all faces of the person, in
    whatever shots and videos, which needs the table `persons`."""
    neutral: NeutralConfig | None = None
    """Of `baseline: neutral`."""
    action_units: EpisodeConfig = EpisodeConfig(on_at=0.5, off_at=0.35, least_s=0.1, merge_s=0.1)
    """0.5 is a convention, as everywhere. 0.1 s is below the shortest expression reported, a sixth of a second (Yan,
    Wu, Liang, Chen and Fu, Journal of Nonverbal Behavior 37, 2013), so a shorter dip is no end either."""
    emotions: EpisodeConfig = EpisodeConfig(on_at=0.5, off_at=0.35, least_s=0.25, merge_s=0.25)
    """Above 0.5 one label outweighs all others. Expressions of emotion last 0.5 to 4 s (Ekman, Emotions Revealed,
    2003); half of that is asked for."""
    smiles: EpisodeConfig = EpisodeConfig(on_at=0.5, off_at=0.35, least_s=0.25, merge_s=0.25)
    """Of AU12. Spontaneous smiles last 0.5 to 4 s (Ekman and Friesen, Journal of Nonverbal Behavior 6, 1982)."""
    gaze_away: EpisodeConfig = EpisodeConfig(on_at=0.35, off_at=0.3, least_s=0.5, merge_s=0.2)
    """Of `gaze_angle`, rad. 0.35 are 20 degrees, twice to three times the error that is published for gaze."""
    blinks: BlinkConfig = BlinkConfig()
    movements: MovementConfig = MovementConfig()
    events: Annotated[list[EventConfig], Field(max_length=100)] = []
    """Kinds of your own."""

    @field_validator("events")
    @classmethod
    def _names_are_free(cls, value: list[EventConfig]) -> list[EventConfig]:
        names = [event.name for event in value]
        taken = {kind.casefold() for kind in KINDS}
        for name in names:
            if name.casefold() in taken or sum(name.casefold() == other.casefold() for other in names) > 1:
                raise ValueError(f"the name {name!r} is taken; every kind of event has one of its own")
        return value

    @model_validator(mode="after")
    def _relative_to_something(self) -> DeriveConfig:
        for name in ("emotions", "smiles", "gaze_away"):
            if getattr(self, name).relative:
                raise ValueError(f"{name}.relative: only action units have a baseline; use an entry of `events`")
        if any(event.relative for event in self.events):
            raise ValueError("events: relative is for action_units; write the baseline into the thresholds")
        if self.action_units.relative and self.baseline == "none":
            raise ValueError("action_units.relative needs a baseline; set baseline to median, p10, neutral or person")
        if self.baseline == "neutral" and self.neutral is None:
            raise ValueError("baseline: neutral needs neutral.marked_by, the manifest's column that marks them")
        if self.neutral is not None and self.baseline != "neutral":
            raise ValueError("neutral: has no effect without baseline: neutral")
        return self

    def settings(self) -> dict[str, Any]:
        """Return what decides derived rows, as plain data."""
        unused = {"enabled"} if self.neutral is not None else {"enabled", "neutral"}  # names of derivations stay
        return {"epoch": DERIVE_EPOCH, **self.model_dump(mode="json", exclude=unused)}

    @property
    def derivation(self) -> str:
        """Return `d-` and 8 hex digits of the sha256 of the settings: the value of the partition.

        With the letter, so that no engine takes the folder's name for a number.
        """
        text = json.dumps(self.settings(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"d-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
