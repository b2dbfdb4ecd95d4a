"""Findings. Blinks: short closures of the eyes, measured against the track's own open eyes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featray.config_derive import BlinkConfig
from featray.findings.episodes import Spans, find_episodes, join
from featray.findings.samples import Flags, Floats, Samples, quantiles


@dataclass(frozen=True)
class Blinks:
    """Blinks, and the eyes in which they were seen.

    Attributes:
        left, right: bool `[m]`, whether the subject's left or right eye blinked.
        signal: float32 `[n]`, closure of the eyes: that of the more closed one.
    """

    spans: Spans
    left: Flags
    right: Flags
    signal: Floats


def find_blinks(left: Floats, right: Floats, samples: Samples, config: BlinkConfig) -> Blinks:
    """Find the blinks of tracks that are sampled often enough.

    Overlapping closures of the two eyes are one blink. If one eye stays closed for longer than a blink, it is not a
    blink, whatever the other eye does.

    Args:
        left: float32 `[n]`, closure of the subject's left eye, [0, 1].
        right: closure of the right eye; the same array as `left` if the eyes are not known separately.
        samples: the samples' times.
        config: the thresholds.
    """
    eyes = (_closures(left, samples, config), _closures(right, samples, config))
    spans, held = join(eyes)
    long = np.zeros(len(spans), np.bool_)
    for eye in eyes:
        over = eye.ends[eye.covered(samples) > 2e6 * config.most_s]
        long[np.searchsorted(spans.starts, over, side="right") - 1] = True
    seen = can_show_blinks(samples, config)[samples.track[spans.starts]]
    chosen = ~long & seen & (spans.covered(samples) <= 2e6 * config.most_s)
    return Blinks(spans.where(chosen), held[0][chosen], held[1][chosen], np.fmax(left, right))


def can_show_blinks(samples: Samples, config: BlinkConfig) -> Flags:
    """Return whether each track has enough samples per second, bool `[t]`."""
    return np.nan_to_num(samples.faces_per_s) >= config.least_faces_per_s


def _closures(closed: Floats, samples: Samples, config: BlinkConfig) -> Spans:
    open_eye = quantiles(closed, samples, (50,))[0]
    deviation = quantiles(np.abs(closed - open_eye[samples.track]), samples, (50,))[0]
    rise = np.maximum(np.float32(config.rise), np.float32(config.noise) * deviation)
    on, off = open_eye + rise, open_eye + rise / 2
    track = samples.track
    return find_episodes(closed, samples, on=on[track], off=off[track], least_s=0, merge_s=0)
