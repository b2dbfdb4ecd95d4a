"""Findings. Derive the rows of whole tracks, with one column in memory at a time.

A track's rows depend, bit for bit, only on its own faces and the settings: not on other tracks in the batch, nor on how
videos were cut into units, shards and files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config_derive import DeriveConfig
from featray.errors import ConfigError
from featray.findings.asymmetry import MESH_PAIRS, PAIRS
from featray.findings.blinks import can_show_blinks, find_blinks
from featray.findings.episodes import Spans
from featray.findings.events import Found, event_table, find_kind, of_blinks, of_smiles
from featray.findings.expression import Expression
from featray.findings.movement import band, find_swings
from featray.findings.samples import Flags, Floats, Samples
from featray.findings.smoothing import smooth
from featray.findings.statistics import (
    Statistics,
    column,
    counts,
    mean_seconds,
    medians,
    shares,
    statistics,
)
from featray.names import AU_NAMES_20, BLENDSHAPE_NAMES, EMOTION_NAMES_7
from featray.schema import DESCRIBED, FACES

Read = Callable[[str], Floats]
"""Returns a column of the batch, float32 `[n]` in the order of its samples; NaN where null."""

Levels = tuple[float, ...]
"""The resting value of each action unit, in the order of AU_NAMES_20; NaN if unknown."""

_EMOTIONS: Final = tuple(f"emotion_{name}" for name in EMOTION_NAMES_7)
_QUALITY: Final = ("face_px", "sharpness", "in_frame")
_EXPRESSIBLE: Final = frozenset(c.name for c in FACES if pa.types.is_float32(c.type)) | frozenset(BLENDSHAPE_NAMES)


def parse_events(config: DeriveConfig) -> dict[str, Expression]:
    """Return the expressions of a config's custom events, by name.

    Raises:
        ConfigError: a text is not an expression over columns.
    """
    return {event.name: Expression(event.name, event.expression, _EXPRESSIBLE) for event in config.events}


def needed_faces(config: DeriveConfig) -> tuple[str, ...]:
    """Return the columns of `faces` that a batch reads."""
    return tuple(dict.fromkeys([*DESCRIBED, *_QUALITY, *sorted(_own(config) - set(BLENDSHAPE_NAMES))]))


def needed_blendshapes(config: DeriveConfig) -> tuple[str, ...]:
    """Return the columns of `blendshapes` that a batch reads."""
    paired = [name for pair in PAIRS.values() for name in pair]
    return tuple(dict.fromkeys([*paired, *sorted(_own(config) & set(BLENDSHAPE_NAMES))]))


def _own(config: DeriveConfig) -> set[str]:
    return {name for expression in parse_events(config).values() for name in expression.columns}


@dataclass
class Batch:
    """A batch of tracks and their derivation.

    Attributes:
        samples: samples of all tracks.
        read: returns a column of `faces`.
        shapes: returns a column of `blendshapes`; None if the output has none.
        mesh: returns an asymmetry of the mesh by its name in MESH_PAIRS; None if the output has no mesh.
        config: the settings.
        given: float32 `[20, t]`, baselines from other faces; None if the settings do not use them.
    """

    samples: Samples
    read: Read
    shapes: Read | None
    mesh: Read | None
    config: DeriveConfig
    given: NDArray[np.float32] | None = None
    _found: list[Found] = field(default_factory=list)
    _columns: dict[str, pa.Array] = field(default_factory=dict)

    def derive(self) -> tuple[pa.Table, pa.Table]:
        """Return the columns of `tracks` that follow from samples, a row per track; and `events`, see `event_table`."""
        self._describe_span()
        self._action_units()
        self._others()
        self._blinks()
        self._movements()
        self._asymmetry()
        self._own_events()
        return pa.table(self._columns), event_table(self._found, self.samples)

    def _put(self, name: str, values: Floats) -> None:
        self._columns[name] = column(values, pa.float32())

    def _describe_span(self) -> None:
        samples = self.samples
        ends = samples.starts + samples.counts - 1
        self._columns["start_us"] = pa.array(samples.pts_us[samples.starts], pa.int64())
        self._columns["end_us"] = pa.array(samples.pts_us[ends], pa.int64())
        self._columns["frames"] = pa.array(samples.counts, pa.int32())
        self._put("faces_per_s", samples.faces_per_s.astype(np.float32))
        self._put("seen_s", (samples.totals / 2e6).astype(np.float32))
        for name in _QUALITY:
            self._put(f"{name}_median", medians(self.read(name), samples))

    def _describe(self, name: str, values: Floats) -> Statistics:
        found = statistics(values, self.samples)
        for kind in ("mean", "sd", "p05", "p50", "p95"):
            self._put(f"{name}_{kind}", getattr(found, kind))
        return found

    def _smooth(self, values: Floats) -> Floats:
        return smooth(values, self.samples, self.config.smooth_s)

    def _action_units(self) -> None:
        settings = self.config.action_units
        smiles: Found | None = None
        cheeks: tuple[Spans, Flags] | None = None
        for name in AU_NAMES_20:
            values = self.read(name)
            base = self._baseline(name, self._describe(name, values))
            self._put(f"{name}_baseline", base)
            values = self._smooth(values)
            episodes = find_kind(name, values, self.samples, settings, base)
            self._found.append(episodes)
            # Without a known baseline there are no episodes, but that must not be reported as zero episodes.
            known = ~np.isnan(base) if settings.relative else np.ones(self.samples.tracks, np.bool_)
            number = np.where(known, counts(episodes.spans, self.samples), np.nan)
            self._put(f"{name}_active", np.where(known, shares(episodes.spans, self.samples), np.float32(np.nan)))
            self._columns[f"{name}_episodes"] = column(number, pa.int32())
            self._put(f"{name}_episode_s", mean_seconds(episodes.spans, self.samples))
            if name == "AU06":
                cheeks = episodes.spans, known
            elif name == "AU12":
                smiles = find_kind("smile", values, self.samples, self.config.smiles)
        assert smiles is not None and cheeks is not None
        self._found.append(of_smiles(smiles, *cheeks, self.samples))

    def _baseline(self, name: str, found: Statistics) -> Floats:
        kind = self.config.baseline
        if kind in ("neutral", "person") and self.given is not None:
            level: Floats = self.given[AU_NAMES_20.index(name)]
            return level
        unknown = np.full_like(found.p50, np.nan)
        return {"median": found.p50, "p10": found.p10}.get(kind, unknown)

    def _others(self) -> None:
        for name in (name for name in DESCRIBED if name not in AU_NAMES_20):
            values = self.read(name)
            self._describe(name, values)
            if name in _EMOTIONS and name != "emotion_neutral":
                self._found.append(find_kind(name, self._smooth(values), self.samples, self.config.emotions))
            elif name == "gaze_angle":
                away = self.config.gaze_away
                self._found.append(find_kind("gaze_away", self._smooth(values), self.samples, away))
                self._put("gaze_on_camera", self._share_of(values < np.float32(away.on_at), values))

    def _share_of(self, holds: Flags, values: Floats) -> Floats:
        """Return the share of time in which a condition holds, of the time in which values are known."""
        cells, starts = self.samples.cells, self.samples.starts
        known = np.add.reduceat(np.where(np.isnan(values), 0, cells), starts)
        with np.errstate(divide="ignore", invalid="ignore"):
            share: NDArray[np.float64] = np.add.reduceat(np.where(holds, cells, 0), starts) / known
        return share.astype(np.float32)

    def _blinks(self) -> None:
        samples, settings = self.samples, self.config.blinks
        left, right = (self._eye(f"eyeBlink{side}") for side in ("Left", "Right"))
        if left is None or right is None:
            left = right = self.read("AU43")
        blinks = of_blinks(find_blinks(left, right, samples, settings))
        self._found.append(blinks)
        number = counts(blinks.spans, samples).astype(np.float64)
        number[~can_show_blinks(samples, settings)] = np.nan
        self._columns["blinks"] = column(number, pa.int32())
        self._put("blinks_per_min", (number / (samples.totals / 2e6) * 60).astype(np.float32))

    def _eye(self, name: str) -> Floats | None:
        values = None if self.shapes is None else self.shapes(name)
        return None if values is None or np.isnan(values).all() else values

    def _movements(self) -> None:
        settings = self.config.movements
        pitch, yaw = (band(self.read(f"pose_{axis}"), self.samples, settings) for axis in ("pitch", "yaw"))
        for kind, moving, across in (("nod", pitch, yaw), ("shake", yaw, pitch)):
            spans = find_swings(moving, across, self.samples, settings)
            self._found.append(Found(kind, spans, np.abs(moving)))

    def _asymmetry(self) -> None:
        shapes, mesh, nothing = self.shapes, self.mesh, np.full(self.samples.tracks, np.nan, np.float32)
        for name, (left, right) in PAIRS.items():
            found = nothing if shapes is None else self._mean(shapes(left) - shapes(right))
            self._put(f"asymmetry_{name}", found)
        for name in MESH_PAIRS:
            self._put(f"asymmetry_mesh_{name}", nothing if mesh is None else self._mean(mesh(name)))

    def _mean(self, values: Floats) -> Floats:
        cells = np.where(np.isnan(values), 0, self.samples.cells).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            weighted = np.add.reduceat(np.where(np.isnan(values), 0, values) * cells, self.samples.starts)
            mean: NDArray[np.float64] = weighted / np.add.reduceat(cells, self.samples.starts)
        return mean.astype(np.float32)

    def _own_events(self) -> None:
        expressions = parse_events(self.config)
        for event in self.config.events:
            columns = {}
            for name in expressions[event.name].columns:
                if name in BLENDSHAPE_NAMES and self.shapes is None:
                    raise ConfigError(
                        f"derive.events: {event.name}: {name}: this output has no blendshapes; use columns of faces"
                    )
                columns[name] = (self.shapes or self.read)(name) if name in BLENDSHAPE_NAMES else self.read(name)
            values = self._smooth(expressions[event.name](columns))
            self._found.append(find_kind(event.name, values, self.samples, event))
