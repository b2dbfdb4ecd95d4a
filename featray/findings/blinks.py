"""Findings. Blinks: short closures of the eyes, measured against the track's own open eyes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featray.config_derive import BlinkConfig
from featray.findings.episodes import Spans, find_episodes, join
from featray.findings.samples import Flags, Floats, Samples, quantiles


@dataclass(frozen=True)
class Blinks:
    """Blinks with the eyes that they were seen in.

    Attributes:
        left, right: bool `[m]`, of the subject's eyes.
        signal: float32 `[n]`, how closed the eyes are: the more closed of the two.
    """

    spans: Spans
    left: Flags
    right: Flags
    signal: Floats


def find_blinks(left: Floats, right: Floats, samples: Samples, config: BlinkConfig) -> Blinks:
    """Find blinks of tracks that are sampled often enough to show them.

    Closures of the two eyes that overlap are one blink. One in which an eye stays closed for longer than a blink is
    none, whatever the other does.

    Args:
        left: float32 `[n]`, how closed the subject's left eye is, [0, 1].
        right: the same of the right eye; the very same where that is not known of each.
        samples: their times.
        config: what counts.
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
    """Bool `[t]`, whether a track has enough samples a second."""
    return np.nan_to_num(samples.faces_per_s) >= config.least_faces_per_s


def _closures(closed: Floats, samples: Samples, config: BlinkConfig) -> Spans:
    open_eye = quantiles(closed, samples, (50,))[0]
    deviation = quantiles(np.abs(closed - open_eye[samples.track]), samples, (50,))[0]
    rise = np.maximum(np.float32(config.rise), np.float32(config.noise) * deviation)
    on, off = open_eye + rise, open_eye + rise / 2
    track = samples.track
    return find_episodes(closed, samples, on=on[track], off=off[track], least_s=0, merge_s=0)
