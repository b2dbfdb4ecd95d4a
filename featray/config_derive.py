"""Ground. The section `derive:` of a config: how `tracks` and `events` are computed from faces.

None of these settings changes a release: derived rows are computed from published rows and have their own partition.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from featray.config_section import Section
from featray.config_text import EVENT_NAME
from featray.names import AU_NAMES_20, EMOTION_NAMES_7

DERIVE_EPOCH: Final = 1
"""Raise this when a code change alters derived rows for the same settings, so that they are computed again."""

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
"""Built-in kinds of events. `neutral` is the state that the other emotions are compared with, so it is not an event."""


class EpisodeConfig(Section):
    """Thresholds and durations that define an episode of a signal."""

    on_at: float
    """An episode reaches this value at least once. (The key is not `on`, since YAML reads a bare `on` as true.)"""
    off_at: float
    """An episode stays at or above this value throughout; a single threshold would split a noisy episode into many."""
    least_s: Seconds
    """Shorter episodes are dropped. An episode's duration is the time that its samples represent."""
    merge_s: Seconds
    """Episodes separated by less than this are merged."""
    relative: bool = False
    """Whether the thresholds are relative to the track's baseline; only for action units."""

    @model_validator(mode="after")
    def _off_is_below(self) -> EpisodeConfig:
        if self.off_at > self.on_at:
            raise ValueError(f"off_at ({self.off_at:g}) is above on_at ({self.on_at:g}); an episode could never begin")
        return self


class EventConfig(EpisodeConfig):
    """A custom kind of event."""

    name: Annotated[str, Field(pattern=EVENT_NAME)]
    """Value of `events.kind`; must differ from the built-in kinds."""
    expression: Annotated[str, Field(min_length=1, max_length=1000)]
    """Arithmetic over the columns of `faces` and `blendshapes`, such as `(AU12 + AU25) / 2` or
    `max(mouthSmileLeft, mouthSmileRight)`: numbers, `+ - * / **`, comparisons (1 or 0), `and or not`, and
    `abs min max sqrt exp log`. What is undefined or infinite, such as `1 / 0` and `log(-1)`, counts as no value."""


class BlinkConfig(Section):
    """Thresholds of a blink, per eye, on the signals `eyeBlinkLeft` and `eyeBlinkRight`, else on AU43."""

    rise: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Rise above the track's own median, which represents the open eye; eyelids and glasses differ more between people
    than blinks do. The signal must stay above half of this rise. MediaPipe's open eyes are near 0.1, closed ones at 0.5
    and above."""
    noise: Annotated[float, Field(ge=0, le=20)] = 6.0
    """Minimum rise in median absolute deviations of the track (6 are 4 standard deviations of noise)."""
    most_s: Annotated[float, Field(gt=0, le=10)] = 0.5
    """A longer closure is not a blink: blinks take 0.1 to 0.4 s (Stern, Walrath and Goldstein, Psychophysiology 21,
    1984); closures of 0.5 s and longer count as microsleeps (Caffier, Erdmann and Ullsperger, Eur J Appl Physiol 89,
    2003)."""
    least_faces_per_s: Annotated[float, Field(gt=0, le=1000)] = 14.0
    """Tracks with fewer samples per second are not searched for blinks, and their count is null: with less than two
    samples in a blink of 0.15 s, most peaks fall between samples. `decode.sample: {fps: 15}` takes slightly fewer
    than 15 frames per second of most videos, because it takes whole frames."""


class MovementConfig(Section):
    """Thresholds of a nod (on `pose_pitch`) and a shake of the head (on `pose_yaw`)."""

    least_rad: Annotated[float, Field(gt=0, le=1.5)] = 0.035
    """Minimum amplitude of each swing, 2 degrees: smaller movements are posture, speech and the network's noise."""
    low_hz: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Lower end of the band; see `high_hz`."""
    high_hz: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Upper end of the band. Head movements in conversation have 0.2 to 1.8 Hz (slow, including posture), 1.8 to 3.7 Hz
    (ordinary) or more (rapid); see Hadar, Steiner, Grant and Rose, Human Movement Science 2, 1983."""
    least_swings: Annotated[int, Field(ge=2, le=20)] = 3
    """Consecutive swings to and fro; turning the head once looks like two swings in the band."""
    least_faces_per_s: Annotated[float, Field(gt=0, le=1000)] = 9.5
    """Tracks with fewer samples per second are not searched for nods and shakes: 10 give two samples per swing at the
    middle of the band, and `decode.sample: {fps: 10}` takes slightly fewer than 10 frames per second."""

    @model_validator(mode="after")
    def _is_a_band(self) -> MovementConfig:
        if self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz ({self.low_hz:g}) is not below high_hz ({self.high_hz:g})")
        return self


class NeutralConfig(Section):
    """Neutral recordings and their persons, given by columns of the videos' manifest or by path fields."""

    marked_by: Annotated[str, Field(min_length=1, max_length=200)]
    """Column that marks neutral recordings. Without `value`, its text says which part of the video is neutral: `yes`,
    `true` or `1` for all of it; empty, `no`, `false` or `0` for none; or spans in seconds of presentation time, such as
    `2.5-10; 60-65`."""
    value: str | None = None
    """Text in that column that marks a whole video as neutral, such as `rest` in a column `condition`."""
    key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Column that identifies the person, such as `participant`; the neutral recording applies to every video with the
    same text. Without a key, each video has its own neutral part, which must be marked by spans."""


class DeriveConfig(Section):
    """Derivation of `tracks` and `events` from published rows."""

    enabled: bool = True
    """Whether `featray run` computes them when it publishes; `featray derive` computes them for existing outputs."""
    gap_s: Annotated[float, Field(gt=0, le=3600)] = 0.5
    """A step between samples that is longer than this, and longer than three median steps of the track, is a gap:
    nothing is smoothed, averaged or joined over it. An onset takes half a second, so a signal cannot fall and rise
    again unseen in less."""
    smooth_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Time constant of the filter applied before event detection. Off by default: two thresholds and a minimum duration
    already exclude noise, and a filter flattens short events. OpenFace averages 3 frames, about 0.03 on this scale."""
    baseline: Literal["none", "median", "p10", "neutral", "person"] = "median"
    """Resting value of each action unit in a track: the median, as in OpenFace (Baltrusaitis, Mahmoud and Robinson,
    FERA 2015); the 10th percentile, for recordings in which the face is active most of the time; the value in a
    neutral recording of the same person, see `neutral`; or the median over all faces of the person in all shots and
    videos, which needs the table `persons`."""
    neutral: NeutralConfig | None = None
    """Settings for `baseline: neutral`."""
    action_units: EpisodeConfig = EpisodeConfig(on_at=0.5, off_at=0.35, least_s=0.1, merge_s=0.1)
    """0.5 is the usual convention. 0.1 s is below the shortest expression reported, a sixth of a second (Yan, Wu,
    Liang, Chen and Fu, Journal of Nonverbal Behavior 37, 2013), so a shorter dip does not end an episode either."""
    emotions: EpisodeConfig = EpisodeConfig(on_at=0.5, off_at=0.35, least_s=0.25, merge_s=0.25)
    """Above 0.5 one label outweighs all others. Expressions of emotion last 0.5 to 4 s (Ekman, Emotions Revealed,
    2003); the minimum is half of the shortest."""
    smiles: EpisodeConfig = EpisodeConfig(on_at=0.5, off_at=0.35, least_s=0.25, merge_s=0.25)
    """On AU12. Spontaneous smiles last 0.5 to 4 s (Ekman and Friesen, Journal of Nonverbal Behavior 6, 1982)."""
    gaze_away: EpisodeConfig = EpisodeConfig(on_at=0.35, off_at=0.3, least_s=0.5, merge_s=0.2)
    """On `gaze_angle`, in rad. 0.35 is 20 degrees, two to three times the published error of gaze estimates."""
    blinks: BlinkConfig = BlinkConfig()
    movements: MovementConfig = MovementConfig()
    events: Annotated[list[EventConfig], Field(max_length=100)] = []
    """Custom kinds of events."""

    @field_validator("events")
    @classmethod
    def _names_are_free(cls, value: list[EventConfig]) -> list[EventConfig]:
        names = [event.name for event in value]
        taken = {kind.casefold() for kind in KINDS}
        for name in names:
            if name.casefold() in taken or sum(name.casefold() == other.casefold() for other in names) > 1:
                raise ValueError(f"the name {name!r} is taken; choose another one")
        return value

    @model_validator(mode="after")
    def _relative_to_something(self) -> DeriveConfig:
        for name in ("emotions", "smiles", "gaze_away"):
            if getattr(self, name).relative:
                raise ValueError(
                    f"{name}.relative: only action units have a baseline; define a kind in `events` instead"
                )
        if any(event.relative for event in self.events):
            raise ValueError("events: relative is only for action_units; write the baseline into the thresholds")
        if self.action_units.relative and self.baseline == "none":
            raise ValueError("action_units.relative needs a baseline; set baseline to median, p10, neutral or person")
        if self.baseline == "neutral" and self.neutral is None:
            raise ValueError("baseline: neutral needs neutral.marked_by, the manifest column that marks recordings")
        if self.neutral is not None and self.baseline != "neutral":
            raise ValueError("neutral: has no effect without baseline: neutral; set that, or remove neutral")
        return self

    def settings(self) -> dict[str, Any]:
        """Return the settings that change derived rows, as plain data."""
        unused = {"enabled"} if self.neutral is not None else {"enabled", "neutral"}  # keeps older derivations' names
        return {"epoch": DERIVE_EPOCH, **self.model_dump(mode="json", exclude=unused)}

    @property
    def derivation(self) -> str:
        """Return the value of the partition: `d-` and 8 hex digits of the settings' sha256.

        The letter keeps query engines from parsing the folder's name as a number.
        """
        text = json.dumps(self.settings(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"d-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
