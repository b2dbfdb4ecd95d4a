"""Findings. Events of a batch of tracks, kind by kind, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config_derive import EpisodeConfig
from featray.findings.blinks import Blinks
from featray.findings.episodes import Spans, find_episodes, means, peaks
from featray.findings.samples import Flags, Floats, Ints, Samples

WITH_AU06, WITHOUT_AU06 = "with_AU06", "without_AU06"

_COLUMNS: Final = ("track start_us peak_us end_us peak mean frames open_start open_end kind side variant").split()


@dataclass(frozen=True)
class Found:
    """Events of one kind.

    Attributes:
        signal: float32 `[n]`, the signal for peak and mean.
        side, variant: one word per event, or None.
    """

    kind: str
    spans: Spans
    signal: Floats
    side: NDArray[np.object_] | None = None
    variant: NDArray[np.object_] | None = None


def find_kind(kind: str, signal: Floats, samples: Samples, config: EpisodeConfig, base: Floats | None = None) -> Found:
    """Find the episodes of a signal.

    Args:
        kind: the kind of event.
        signal: float32 `[n]`.
        samples: the samples' times.
        config: thresholds and durations.
        base: float32 `[t]`, baselines to which relative thresholds are added.
    """
    above = np.zeros(samples.tracks, np.float32) if base is None or not config.relative else base
    on, off = ((above + np.float32(threshold))[samples.track] for threshold in (config.on_at, config.off_at))
    spans = find_episodes(signal, samples, on=on, off=off, least_s=config.least_s, merge_s=config.merge_s)
    return Found(kind, spans, signal)


def of_smiles(smiles: Found, cheeks: Spans, known: Flags, samples: Samples) -> Found:
    """Return smiles with a variant: whether AU06 was active for at least half of the smile's time.

    Args:
        smiles: episodes of AU12.
        cheeks: episodes of AU06.
        known: bool `[t]`, whether AU06 episodes of a track can be determined.
        samples: the samples' times.
    """
    raised = np.where(cheeks.mask(len(samples.track)), samples.cells, 0)
    summed = np.concatenate([[0], np.cumsum(raised)])
    spans = smiles.spans
    with_au06 = 2 * (summed[spans.ends + 1] - summed[spans.starts]) >= spans.covered(samples)
    variant = np.where(with_au06, WITH_AU06, WITHOUT_AU06).astype(object)
    variant[~known[samples.track[spans.starts]]] = None
    return Found("smile", spans, smiles.signal, variant=variant)


def of_blinks(blinks: Blinks) -> Found:
    """Return blinks as events, with the subject's side."""
    side = np.where(blinks.left & blinks.right, "both", np.where(blinks.left, "left", "right")).astype(object)
    return Found("blink", blinks.spans, blinks.signal, side=side)


def event_table(found: list[Found], samples: Samples) -> pa.Table:
    """Return the events of a batch: columns of `events`, with `track`, the track's position, instead of its id.

    Within a track `event_id` counts from 0 by start, then kind; rows are ordered by track and `event_id`.
    """
    parts = [_columns(one, samples) for one in found if len(one.spans)]
    if not parts:
        return _table(dict.fromkeys(_COLUMNS, np.zeros(0, object)))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS}
    _, rank = np.unique(columns["kind"].astype(str), return_inverse=True)
    order = np.lexsort((columns["end_us"], rank, columns["start_us"], columns["track"]))
    return _table({name: values[order] for name, values in columns.items()})


def _columns(found: Found, samples: Samples) -> dict[str, NDArray[np.generic]]:
    spans, count = found.spans, len(found.spans)
    places, most = peaks(found.signal, spans)
    nothing = np.full(count, None, object)
    return {
        "track": samples.track[spans.starts],
        "start_us": samples.pts_us[spans.starts],
        "peak_us": samples.pts_us[places],
        "end_us": samples.pts_us[spans.ends],
        "peak": most,
        "mean": means(found.signal, samples, spans),
        "frames": spans.ends - spans.starts + 1,
        "open_start": samples.first[spans.starts],
        "open_end": samples.last[spans.ends],
        "kind": np.full(count, found.kind, object),
        "side": nothing if found.side is None else found.side,
        "variant": nothing if found.variant is None else found.variant,
    }


def _table(columns: dict[str, NDArray[np.generic]]) -> pa.Table:
    track = columns["track"]
    return pa.table(
        {
            "track": pa.array(track, pa.int64()),
            "event_id": pa.array(_numbered(track), pa.int32()),
            **{name: pa.array(columns[name], pa.string()) for name in ("kind", "side", "variant")},
            **{name: pa.array(columns[name], pa.int64()) for name in ("start_us", "peak_us", "end_us")},
            **{name: pa.array(columns[name].astype(np.float32), pa.float32()) for name in ("peak", "mean")},
            "frames": pa.array(columns["frames"], pa.int32()),
            **{name: pa.array(columns[name].astype(np.bool_), pa.bool_()) for name in ("open_start", "open_end")},
        }
    )


def _numbered(track: NDArray[np.generic]) -> Ints:
    """Return positions within runs of equal values."""
    fresh: Flags = np.concatenate([[True], track[1:] != track[:-1]])[: len(track)]
    starts = np.flatnonzero(fresh)
    return np.arange(len(track)) - np.repeat(starts, np.diff(np.append(starts, len(track))))
