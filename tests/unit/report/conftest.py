"""An output of two releases and three clips, one of which is no video, made by the main job on its local executor."""

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
class Two:
    """The output, the folder of its clips, and its releases in the order they were made."""

    output: Output
    clips: Path
    before: str
    after: str

    def rows(self, sql: str, release: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = run_sql(connect(self.output, release), sql).read_all().to_pylist()
        return found


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory, face_clip: Path) -> Two:
    """Return an output whose releases differ in weights and sampling: every fourth frame, then every third."""
    folder = tmp_path_factory.mktemp("report")
    clips = folder / "clips"
    clips.mkdir()
    small = "-an -vf scale=320:180,fps=24 -c:v libx264 -preset veryfast -g 12 -pix_fmt yuv420p".split()
    run_ffmpeg("-t", "2", "-i", str(face_clip), *small, str(clips / "a <b> & 'c'.mp4"))
    run_ffmpeg("-t", "1", "-i", str(face_clip.parent / "no_face.mp4"), *small, str(clips / "nobody.mp4"))
    (clips / "broken.mp4").write_bytes(b"this is no video\n" * 99)
    releases = []
    for seed, every in ((0, 4), (1, 3)):
        checkpoint = folder / f"atto-{seed}.safetensors"
        write_synthetic(checkpoint, config=SYNTHETIC_VARIANTS["atto"], seed=seed)
        config = parse_config(
            {
                "dataset": "smiles",
                "input": {"uris": [f"{clips}/*.mp4"]},
                "output": {"uri": str(folder / "out")},
                "decode": {"sample": {"every": every}},
                "model": {"checkpoint": str(checkpoint), "engine": "torch", "precision": "fp32", "batch_size": 8},
            }
        )
        run_here(config)
        output = open_output(config.output.uri)
        releases.append(connect(output).sql("SELECT max(release) FROM videos").fetchall()[0][0])
    return Two(output, clips, *releases)
