"""A report on a thousand videos: bounded memory and size, the same numbers as DuckDB; a sample if rows are too many."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.report.distributions import FEATURES
from featray.report.numbers import VIDEOS_LISTED
from featray.report.page import ReportSettings, write_report
from featray.schema import arrow_schema
from featray.tables.commits import Commit, CommittedVideo, write_commit
from featray.tables.layout import Output, Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.query import connect, run_sql
from featray.tables.writer import TableWriter
from tests.fixtures.columns import table_of
from tests.fixtures.page import Page

VIDEOS, SHARDS, FRAMES = 1000, 10, 200
RELEASE, START = "made-up-0", datetime(2026, 3, 1, tzinfo=UTC)
BROKEN = 40


class HangsUp:
    """A server that closes every connection at once, and counts them."""

    def __init__(self) -> None:
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.asked += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[HangsUp]:
    server = HangsUp()
    yield server
    server.close()


@pytest.fixture(scope="module")
def thousand(server, tmp_path_factory) -> Output:
    """Return 1,000 videos of 200 frames, every 25th broken, with some 150,000 made-up faces.

    The writer and the commits are the real ones.
    """
    root = tmp_path_factory.mktemp("thousand")
    output = open_output(str(root / "out"), create=True)
    partition = UnheldPartition(Partition(output, "many", RELEASE))
    rng = np.random.default_rng(1000)
    for shard in range(SHARDS):
        numbers = range(shard * VIDEOS // SHARDS, (shard + 1) * VIDEOS // SHARDS)
        tables = _shard(rng, numbers, f"run-{shard}", server.address)
        files = []
        for table, rows in tables.items():
            folder = partition.folder(table, {})
            writer = TableWriter(table, partition, folder=folder, stem=f"part-{shard}", scratch=str(root), footer={},
                                 path_fields=())  # fmt: skip
            writer.write(rows)
            files += writer.close()
        done = [
            CommittedVideo(
                row["video_id"], row["uri"], "0" * 64, row["status"], row["frames_sampled"] or 0, row["faces"] or 0
            )
            for row in tables["videos"].to_pylist()
        ]
        write_commit(partition, Commit(f"{shard}", f"run-{shard}", shard + 1, files, done))
    return output


def _shard(rng: np.random.Generator, numbers: range, run_id: str, address: str) -> dict[str, pa.Table]:
    known = {"dataset": "many", "release": RELEASE, "run_id": run_id}
    broken = {number for number in numbers if number % (VIDEOS // BROKEN) == 0}
    good = [number for number in numbers if number not in broken]
    ids = {number: f"{number * 2654435761 % 2**32:016x}" for number in numbers}
    seen = rng.random((len(good), FRAMES)) < rng.choice([0.5, 0.9, 1.0], (len(good), 1))
    where = np.indices(seen.shape).reshape(2, -1)
    frames = {
        **known,
        "video_id": [ids[good[video]] for video in where[0]],
        "frame_index": where[1],
        "pts_us": where[1] * 40_000,
        "status": np.where(seen.ravel(), "ok", "no_face"),
        "faces": seen.ravel().astype(np.int32),
        "keyframe": where[1] % 50 == 0,
    }
    kept = np.flatnonzero(seen.ravel())
    faces = {name: np.asarray(frames[name])[kept] for name in ("video_id", "frame_index", "pts_us")} | known
    n = len(kept)
    shares = rng.dirichlet(np.ones(7), n)
    faces |= {name: rng.beta(0.5, 2, n) for name in AU_NAMES_20}
    faces |= {f"emotion_{name}": shares[:, i] for i, name in enumerate(EMOTION_NAMES_7)}
    faces |= {feature.column: rng.normal(0, 0.3, n) for feature in FEATURES if feature.column not in faces}
    faces |= {"score": rng.uniform(0.5, 1, n), "in_frame": rng.uniform(0.6, 1, n), "face_px": rng.uniform(20, 400, n)}
    faces |= {"sharpness": rng.lognormal(4, 1, n), "face_index": np.zeros(n), "track_id": np.zeros(n)}
    faces |= {"interpolated": np.zeros(n, bool)}
    counts = dict(zip(good, seen.sum(1).tolist(), strict=True))
    place = {number: f"{address}/{number:04}.mp4" for number in numbers}
    videos = [
        {**known, "video_id": ids[number], "uri": place[number], "status": "failed", "error_code": "not_a_video"}
        if number in broken
        else {**known, "video_id": ids[number], "uri": place[number], "status": "ok", "codec": "h264", "width": 640,
              "height": 360, "duration_us": FRAMES * 40_000, "frames_decoded": FRAMES, "frames_sampled": FRAMES,
              "frames_with_face": counts[number], "faces": counts[number], "tracks": 1, "published_at": START}
        for number in numbers
    ]  # fmt: skip
    errors = [{**known, "video_id": ids[number], "uri": place[number], "stage": "plan", "error_code": "not_a_video",
               "message": "no media file", "attempt": 1, "at": START} for number in broken]  # fmt: skip
    run = {**known, "started_at": START, "finished_at": START + timedelta(minutes=9), "status": "done_with_failures",
           "config": "made: up", "weights_trained": True, "faces": n}  # fmt: skip
    columns = {"faces": table_of("faces", faces), "frames": table_of("frames", frames)}
    lists = {"videos": videos, "errors": errors, "runs": [run]}
    return columns | {name: pa.Table.from_pylist(rows, schema=arrow_schema(name)) for name, rows in lists.items()}


def _rows(output: Output, sql: str):
    return run_sql(connect(output), sql).read_all().to_pylist()


# getrusage would include the largest size of the parent, which a child inherits.
_MEASURED = """
import re, sys
from featray.cli import main
try:
    main(sys.argv[1:])
finally:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def page(thousand, tmp_path_factory) -> Page:
    """Return the page made by the command in its own process, so that its memory can be measured."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    command = [sys.executable, "-c", _MEASURED, "report", str(thousand.root.path), "--out", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    peak_mib = int(done.stderr.split()[-1]) // 1024
    assert peak_mib < 700, f"{peak_mib} MiB"
    assert 100_000 < path.stat().st_size < 1_000_000
    return Page(path)


def test_counts_are_duckdbs(thousand, page):
    (row,) = _rows(
        thousand,
        "SELECT (SELECT count(*) FROM faces) AS faces, (SELECT count(*) FROM frames) AS frames, "
        "(SELECT count(*) FROM frames WHERE faces > 0) AS with_face",
    )
    assert row["frames"] == (VIDEOS - BROKEN) * FRAMES and row["faces"] > 100_000
    assert page.by_id["n-videos"] == "1,000960 ok, 0 partial, 40 failed"
    assert page.by_id["n-frames"].startswith(f"{row['frames']:,}of ")
    assert page.by_id["n-faces"] == f"{row['faces']:,}in 960 tracks"
    assert page.by_id["n-with-face"].startswith(f"{100 * row['with_face'] / row['frames']:.1f} %")
    assert page.tables["errors"][1][:3] == ["not_a_video", "40", "40"]
    assert len(page.tables["run-list"]) == 1 + SHARDS


def test_a_storage_that_does_not_answer_is_not_asked_for_every_moment(server, page):
    assert page.text.count("the storage does not answer") > 3
    # One request, which the client repeats; if packets are dropped, each of the twelve moments took minutes.
    assert 1 <= server.asked <= 4, server.asked


def test_features_are_duckdbs(thousand, page):
    shown = {text[0]: values for text, values in zip(page.tables["features"], page.values["features"], strict=True)}
    columns = [feature.column for feature in FEATURES]
    (row,) = _rows(thousand, "SELECT " + ", ".join(
        f"{{'mean': avg({name}), 'sd': stddev_pop({name}), 'q': quantile_cont({name}::DOUBLE, [0.05, 0.5, 0.95])}} AS "
        f"{name}" for name in columns) + " FROM faces")  # fmt: skip
    for name in columns:
        values = [float(value) for value in shown[name][2:]]
        assert values[:2] == pytest.approx([row[name]["mean"], row[name]["sd"]], rel=1e-6, abs=1e-9), name
        # Quantiles come from a t-digest, accurate to a hundredth of the spread.
        assert values[2:] == pytest.approx(row[name]["q"], abs=0.01 * max(1, row[name]["sd"])), name


def test_what_is_not_all_is_said(thousand, page):
    assert f"{VIDEOS_LISTED} of 1,000 videos, drawn at random" in page.by_id["videos"]
    assert len(page.tables["video-list"]) == 1 + VIDEOS_LISTED
    assert "Counted over all sampled frames" in page.by_id["coverage"]
    (row,) = _rows(thousand, "SELECT count(*) AS n FROM faces")
    assert f"Counted over all {row['n']:,} faces" in page.by_id["faces"]
    assert "one per video" in page.by_id["moments"] and page.text.count("No thumbnail: ") == 12


def test_beyond_the_limit_a_sample_is_read_and_it_says_so(thousand, tmp_path):
    path: Path = tmp_path / "sampled.html"
    (row,) = _rows(thousand, "SELECT count(*) AS n, avg(AU12) AS mean, stddev_pop(AU12) AS sd FROM faces")
    write_report(thousand, str(path), ReportSettings(thumbnails=False, most_rows=40_000))
    sampled = Page(path)
    assert f"Counted over about {4_000_000 / row['n']:.1f} % of the faces" in sampled.by_id["faces"]
    assert f"Counted over about {4_000_000 / 192_000:.1f} % of the sampled frames" in sampled.by_id["coverage"]
    assert f"about {4_000_000 / row['n']:.1f} % of the faces searched" in sampled.by_id["moments"]
    assert "Counted over all" not in sampled.text
    # Numbers counted once per video stay complete.
    assert sampled.by_id["n-faces"] == f"{row['n']:,}in 960 tracks"
    shown = {
        text[0]: values for text, values in zip(sampled.tables["features"], sampled.values["features"], strict=True)
    }
    mean = float(shown["AU12"][2])
    assert mean != pytest.approx(row["mean"], abs=1e-12), "a sample"
    assert mean == pytest.approx(row["mean"], abs=6 * row["sd"] / 20_000**0.5)
