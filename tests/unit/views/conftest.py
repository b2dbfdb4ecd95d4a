"""A small output, made from two clips by the main job on its local executor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from featray.config import parse_config
from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic
from featray.tables.layout import Output, open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.corpus import run_ffmpeg
from tests.fixtures.runs import run_here


@dataclass(frozen=True)
class Made:
    """An output and the folder of its clips."""

    output: Output
    clips: Path

    def rows(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = run_sql(connect(self.output), sql).read_all().to_pylist()
        return found


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, face_clip: Path) -> Made:
    """Return an output with `turned.mp4` and `late.mp4`, of which every second frame is sampled.

    `turned.mp4` is stored sideways, made upright by its display matrix, and has an uneven frame rate. In `late.mp4`
    there is nobody at first, then a face.
    """
    folder = tmp_path_factory.mktemp("views")
    clips = folder / "clips"
    clips.mkdir()
    x264 = "-an -c:v libx264 -preset veryfast -bf 2 -g 8 -pix_fmt yuv420p".split()
    uneven = "scale=320:180,transpose=1,setpts='(N+N*N/30)/24/TB'"
    on_side = str(folder / "side.mp4")
    run_ffmpeg("-i", str(face_clip), "-vf", uneven, "-frames:v", "24", "-fps_mode", "passthrough", *x264, on_side)
    run_ffmpeg("-display_rotation", "90", "-i", on_side, "-c", "copy", str(clips / "turned.mp4"))
    nobody = "[0:v]scale=320:180,fps=24,setsar=1[a];[1:v]scale=320:180,fps=24,setsar=1[b];[a][b]concat=n=2:v=1"
    inputs = ["-t", "0.5", "-i", str(face_clip.parent / "no_face.mp4"), "-t", "0.5", "-i", str(face_clip)]
    run_ffmpeg(*inputs, "-filter_complex", nobody, *x264, str(clips / "late.mp4"))
    checkpoint = folder / "atto.safetensors"
    write_synthetic(checkpoint, config=SYNTHETIC_VARIANTS["atto"])
    config = parse_config(
        {
            "dataset": "test",
            "input": {"uris": [f"{clips}/*.mp4"]},
            "output": {"uri": str(folder / "out")},
            "decode": {"sample": {"every": 2}},
            "model": {"checkpoint": str(checkpoint), "engine": "torch", "precision": "fp32", "batch_size": 8},
        }
    )
    run_here(config)
    return Made(open_output(config.output.uri), clips)
