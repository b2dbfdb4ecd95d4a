"""Findings. The neutral baseline: resting values of action units from recordings of a person at rest.

Neutral videos are marked by columns of their manifest. Each is reduced to one number per action unit, so the data kept
for a release's neutral videos stays small however many there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featray.config_derive import NeutralConfig
from featray.findings.batch import Levels
from featray.findings.derive import lay_out_videos, video_batches
from featray.findings.rows import Rows, floats
from featray.findings.samples import Flags, quantiles
from featray.names import AU_NAMES_20

SpansUs = tuple[tuple[int, int], ...]
"""Parts of a video as start and end, µs of presentation time, both inclusive."""

WHOLE: Final[SpansUs] = ((-(1 << 62), 1 << 62),)

_YES: Final = frozenset({"yes", "true", "1", "y", "all"})
_NO: Final = frozenset({"", "no", "false", "0", "n", "none"})
_MOST_S: Final = 1e12
"""Upper limit of times; a stream's time is 64 bits of µs."""
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Mark:
    """A manifest's marks of a video: the key of its person, None if unknown, and the neutral parts."""

    key: str | None
    spans_us: SpansUs


def read_mark(video_id: str, columns: Mapping[str, Any], config: NeutralConfig) -> Mark:
    """Read the mark of a video.

    Args:
        video_id: used as the key if `config` names no key column.
        columns: columns of the manifest, and path fields.
        config: names of the columns to use.

    Raises:
        ValueError: the column holds neither yes, no nor spans; the message is its text.
    """
    key = video_id if config.key is None else _text(columns.get(config.key)) or None
    text = _text(columns.get(config.marked_by))
    if config.value is not None:
        return Mark(key, WHOLE if text == config.value.strip() else ())
    if text.casefold() in _YES:
        return Mark(key, WHOLE)
    if text.casefold() in _NO:
        return Mark(key, ())
    spans = []
    for part in re.split("[;,]", text):
        found = _SPAN.fullmatch(part.strip())
        if found is None or not float(found[1]) < float(found[2]) < _MOST_S:
            raise ValueError(text)
        spans.append((round(float(found[1]) * 1e6), round(float(found[2]) * 1e6)))
    return Mark(key, tuple(sorted(spans)))


def _text(value: object) -> str:
    """Return a column's value as text in the form that people write; tables may hold numbers and booleans."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.15g}"
    return "" if value is None else str(value).strip()


@dataclass(frozen=True)
class Rest:
    """The resting values from one neutral video.

    Attributes:
        cells: time that its face was seen in the neutral parts, half µs.
        levels: the median of each action unit over that time, in the order of AU_NAMES_20; NaN if it is null.
    """

    cells: int
    levels: Levels


def read_rest(faces: Rows, spans: Mapping[str, SpansUs], gap_s: float) -> dict[str, Rest]:
    """Return the resting values by video id; videos without a face in their neutral parts are left out.

    Each video is represented by the track with the most time in its neutral parts, the first if several are equal.

    Args:
        faces: rows of `faces` that include these videos.
        spans: the neutral parts by video id.
        gap_s: as `derive.gap_s`.
    """
    found: dict[str, Rest] = {}
    for videos in video_batches({name: faces.counts[name] for name in spans if name in faces.counts}):
        laid = lay_out_videos(faces, videos, gap_s)
        if laid is None:
            continue
        samples = laid.samples
        inside = _inside(samples.pts_us, [spans[name] for name in laid.videos], laid.video)
        cells = np.add.reduceat(np.where(inside, samples.cells, 0), samples.starts)
        of = laid.video[samples.starts]
        order = np.lexsort((np.arange(samples.tracks), -cells, of))
        tracks = order[np.concatenate([[True], of[order][1:] != of[order][:-1]])]
        medians = np.empty((len(AU_NAMES_20), samples.tracks), np.float32)
        for row, name in enumerate(AU_NAMES_20):
            values = floats(faces.read(laid.videos, [name])[name])[laid.order]
            medians[row] = quantiles(np.where(inside, values, np.float32(np.nan)), samples, (50,))[0]
        for track in tracks.tolist():
            if cells[track]:
                levels = tuple(medians[:, track].tolist())
                found[laid.videos[int(of[track])]] = Rest(int(cells[track]), levels)
    return found


def _inside(pts_us: NDArray[np.int64], spans: list[SpansUs], video: NDArray[np.int64]) -> Flags:
    inside = np.zeros(len(pts_us), np.bool_)
    bounds = np.searchsorted(video, np.arange(len(spans) + 1))
    for number, parts in enumerate(spans):
        first, last = bounds[number], bounds[number + 1]
        for start, end in parts:
            inside[first:last] |= (pts_us[first:last] >= start) & (pts_us[first:last] <= end)
    return inside


def pooled(rests: Iterable[Rest]) -> Levels | None:
    """Return each action unit's baseline: the mean of the videos' medians weighted by time; None without videos.

    Args:
        rests: in a fixed order, since the last bit of the result depends on it.
    """
    several = list(rests)
    if not several:
        return None
    values = np.array([rest.levels for rest in several], np.float64)
    cells = np.array([[rest.cells] for rest in several], np.float64) * ~np.isnan(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (np.nan_to_num(values) * cells).sum(axis=0) / cells.sum(axis=0)
    return tuple(mean.astype(np.float32).tolist())
