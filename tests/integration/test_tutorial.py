"""Runs the tutorial unchanged: every fenced block, in order, in an empty folder; `text` blocks are expected output."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from featray.tables.layout import open_output
from featray.tables.query import connect

_TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
_SPARK = importlib.util.find_spec("pyspark") is not None and shutil.which("java") is not None


@pytest.fixture(scope="module")
def done(kept_cache, tmp_path_factory) -> tuple[Path, str]:
    """Return the folder after the last block, and the output of all of them."""
    folder, programs = tmp_path_factory.mktemp("tutorial"), tmp_path_factory.mktemp("bin")
    for name, words in (("featray", f'"{sys.executable}" -m featray "$@"'), ("python", f'"{sys.executable}" "$@"')):
        (programs / name).write_text(f"#!/bin/sh\nexec {words}\n")
        (programs / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "FEATRAY_CACHE": str(kept_cache)}
    env["PYTHONPATH"] = os.pathsep.join([str(_TUTORIAL.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    printed = last = ""
    for block in _BLOCK.finditer(_TUTORIAL.read_text("utf-8")):
        text = block["text"]
        if block["language"] == "text":
            assert block["text"] in last, "the page shows another output than the command"
        elif block["file"]:
            (folder / block["file"]).write_text(text)
        elif block["language"] == "sh" or _SPARK or "pyspark" not in text:
            command = ["bash", "-euo", "pipefail", "-c", text]
            if block["language"] == "python":
                command = [sys.executable, "-c", text]
            ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
            assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"
            last = ended.stdout
            printed += last
    return folder, printed


def test_the_curve_is_that_of_the_tables(done):
    folder, _ = done
    of_clip = "SEMI JOIN (FROM videos WHERE uri LIKE '%/face.mp4') USING (dataset, release, video_id)"
    sql = f"SELECT AU12 FROM faces {of_clip} ORDER BY pts_us"
    rows = connect(open_output(str(folder / "tables"))).sql(sql).fetchall()
    lines = (folder / "au12.csv").read_text().splitlines()
    assert lines[0] == "seconds,AU12" and len(rows) == len(lines) - 1 == 40
    assert [float(line.split(",")[1]) for line in lines[1:]] == pytest.approx([row[0] for row in rows])
    assert Image.open(folder / "au12.png").size == (1200, 450)


def test_every_step_left_its_mark(done):
    folder, printed = done
    assert "3 videos: 3 ok, 0 partial, 0 failed" in printed
    assert re.search(r"face\.mp4\s+40\s+40\s+1\b", printed)
    assert Image.open(folder / "faces.jpg").width > 900
    assert "smiles" in (folder / "report.html").read_text()
    assert "ok: this machine can run featray" in (folder / "doctor.txt").read_text()


def test_groups_are_compared_by_participants(done):
    _, printed = done
    groups = re.findall(r"(resting|watching)\W+(\d)\W+(\d)\W+(\d\.?\d*)", printed)
    assert [group[:3] for group in groups] == [("resting", "2", "1"), ("watching", "1", "1")]
    assert groups[0][3] == groups[1][3], "a copy does not differ"
    assert re.search(r"^p3 resting nobody $", printed, re.MULTILINE)
    rows = re.findall(r"^p[12] \w+ 40 (\d\.\d+)$", printed, re.MULTILINE)
    assert len(rows) == 2 and rows[0] == rows[1]


@pytest.mark.skipif(not _SPARK, reason="needs pyspark and a Java to run the tutorial's block for Spark")
def test_spark_says_the_same_as_duckdb(done):
    _, printed = done
    with_duckdb = re.findall(r"^\w{16} +(\d+)(?:\.0)? s (\d\.\d{3})$", printed, re.MULTILINE)
    with_spark = re.findall(r"^\|\w{16}\| +(\d+)\| *(\d\.\d+)", printed, re.MULTILINE)
    assert len(with_duckdb) >= 8
    assert [(second, f"{float(value):.3f}") for second, value in with_spark] == with_duckdb
