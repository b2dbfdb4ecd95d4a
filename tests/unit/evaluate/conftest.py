"""A release and labels with planted agreement: every measure follows from the arrays."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from featray.names import EMOTION_NAMES_7
from featray.tables.layout import Output
from tests.fixtures.labelled import RELEASE, Planted

UNITS = ("AU01", "AU06", "AU12")


@dataclass
class Made:
    """An output, a file of labels, and the arrays that both were made from, with one row per label.

    `met` marks the labels with a face; the others belong to frames without one. `other` is a second release of the same
    frames: its numbers are noisier, and it misses every tenth face that the first one finds.
    """

    output: Output
    labels: Path
    truth: dict[str, np.ndarray]
    said: dict[str, np.ndarray]
    met: np.ndarray
    subjects: np.ndarray
    other: str = "v25-11111111"


@pytest.fixture(scope="package")
def made(tmp_path_factory) -> Made:
    """Return data of nine people with two videos each and sixty frames per video."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(20261128)
    n, subjects = 9 * 2 * 60, np.repeat(np.arange(9), 120)
    truth, said, other = {}, {}, {}
    for unit in UNITS:
        truth[unit] = rng.choice(6, n, p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05])
        said[unit] = np.clip(0.1 + 0.15 * truth[unit] + rng.normal(0, 0.15, n), 0, 1)
    truth["emotion"] = rng.integers(0, 7, n)
    shares = rng.dirichlet(np.ones(7), n)
    right = rng.random(n) < 0.6
    shares[right] *= 0.4
    shares[right, truth["emotion"][right]] += 0.6
    said |= {f"emotion_{name}": shares[:, i] for i, name in enumerate(EMOTION_NAMES_7)}
    for name in ("valence", "arousal"):
        truth[name] = np.clip(rng.normal(0, 0.3, n) + 0.05 * (subjects - 4), -1, 1)
        said[name] = np.clip(0.8 * truth[name] + rng.normal(0.05, 0.15, n), -1, 1)
    for name, spread in (
        ("gaze_yaw", 0.4),
        ("gaze_pitch", 0.2),
        ("pose_pitch", 0.2),
        ("pose_yaw", 0.4),
        ("pose_roll", 0.1),
    ):
        truth[name] = rng.normal(0, spread, n)
        said[name] = truth[name] + rng.normal(0, 0.08, n)
    said["face_px"] = rng.choice([40.0, 60.0, 150.0], n)
    said["sharpness"] = rng.uniform(1, 900, n)
    said = {name: values.astype(np.float32).astype(float) for name, values in said.items()}
    other = {name: values + (rng.normal(0, 0.2, n) if name[:2] in ("AU", "ga") else 0) for name, values in said.items()}
    met = rng.random(n) < 0.95
    output = Planted(_videos(said, met)).write(folder / "out")
    Planted(_videos(other, met & (np.arange(n) % 10 > 0)), release="v25-11111111").write(folder / "out")
    path = folder / "labels.csv"
    _write(path, truth, subjects)
    return Made(output, path, truth, said, met, subjects)


def _videos(said, met):
    videos = {}
    for video in range(18):
        frames = []
        for frame in range(60):
            row = 60 * video + frame
            face = {name: float(values[row]) for name, values in said.items()}
            frames.append((frame, 40_000 * frame, "ok" if met[row] else "no_face", [face] if met[row] else []))
        videos[f"s{video // 2}/take{video % 2}.mp4"] = frames
    return videos


def _write(path, truth, subjects):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "frame", "subject", "split", "light", *truth])
        for row in range(len(subjects)):
            video, frame = divmod(row, 60)
            values = [EMOTION_NAMES_7[v[row]] if name == "emotion" else v[row] for name, v in truth.items()]
            split = "val" if subjects[row] < 3 else "test"
            writer.writerow(
                [
                    f"s{video // 2}/take{video % 2}.mp4",
                    frame,
                    subjects[row],
                    split,
                    "dim" if row % 3 else "bright",
                    *values,
                ]
            )


@pytest.fixture(scope="package")
def release() -> str:
    return RELEASE
