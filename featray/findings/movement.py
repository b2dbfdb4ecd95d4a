"""Findings. Nods and shakes of the head: swings to and fro within a frequency band."""

from __future__ import annotations

import math

import numpy as np

from featray.config_derive import MovementConfig
from featray.findings.episodes import Spans, means, peaks, runs
from featray.findings.samples import Floats, Samples
from featray.findings.smoothing import smooth


def band(angle_rad: Floats, samples: Samples, config: MovementConfig) -> Floats:
    """Return an angle's movement within the band, float32 `[n]`, rad: a fast filter's output minus a slow one's."""
    fast = smooth(angle_rad, samples, 1 / (2 * math.pi * config.high_hz))
    slow = smooth(angle_rad, samples, 1 / (2 * math.pi * config.low_hz))
    return fast - slow


def find_swings(moving: Floats, across: Floats, samples: Samples, config: MovementConfig) -> Spans:
    """Find movements to and fro in tracks that are sampled often enough.

    A swing is a run of one sign. Each swing of a movement reaches the minimum amplitude, lasts at most half a period of
    the band's low end, and directly follows the previous swing.

    Args:
        moving: float32 `[n]`, the result of `band` for the axis.
        across: the result of `band` for the other axis; a movement that is larger on that axis is excluded.
        samples: the samples' times.
        config: the thresholds.
    """
    swings = _by_sign(moving, samples)
    size = np.abs(moving)
    _, amplitude = peaks(size, swings)
    fits = (amplitude >= np.float32(config.least_rad)) & (swings.covered(samples) <= 1e6 / config.low_hz)
    swings = swings.where(fits)
    if not len(swings):
        return swings
    apart = np.concatenate([[True], swings.starts[1:] != swings.ends[:-1] + 1])
    apart[1:] |= samples.piece[swings.starts[1:]] != samples.piece[swings.starts[:-1]]
    begins = np.flatnonzero(apart)
    counts = np.diff(np.append(begins, len(swings)))
    found = Spans(swings.starts[begins], swings.ends[begins + counts - 1])
    often = np.nan_to_num(samples.faces_per_s)[samples.track[found.starts]] >= config.least_faces_per_s
    main = means(size, samples, found) >= means(np.abs(across), samples, found)
    return found.where((counts >= config.least_swings) & often & main)


def _by_sign(moving: Floats, samples: Samples) -> Spans:
    up, down = runs(moving > 0, samples), runs(moving < 0, samples)
    starts, ends = np.concatenate([up.starts, down.starts]), np.concatenate([up.ends, down.ends])
    order = np.argsort(starts)
    return Spans(starts[order], ends[order])
