"""Cost of finding persons: python tests/benchmarks/bench_persons.py [read] [TRACKS [TRACKS A PERSON]].

Clusters made-up tracks and prints pairwise and B-cubed agreement with the truth, seconds and the peak memory of the
process. Persons are random directions of 128 numbers; few have many tracks and many have few, as in real collections.
A track is its person's direction plus noise, and some tracks have much more noise than others. A video has ten tracks,
some of them on screen at once.

With `read`: cost of making templates from published rows, with 3 embeddings and 30 faces a track.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))
from featray.faces.embedder import unit
from featray.persons.agreement import agreement
from featray.persons.cluster import Tracks, cluster, fit
from featray.persons.templates import EMBEDDING_COLUMNS, FACE_COLUMNS, Templates
from featray.schema import arrow_schema

WIDTH = 128
THRESHOLD = 0.6
"""Cosine of two centres: strangers reach about 0.5 by chance, as random directions do."""
NOISE = (0.25, 0.9)
"""Length of a track's noise; its cosine with its person is then 0.97 to 0.74."""
OF_VIDEO = 10


def made_up(count: int, each: float = 50, seed: int = 0) -> tuple[Tracks, np.ndarray]:
    """Return tracks, and the person of each.

    Args:
        count: number of tracks.
        each: tracks a person, on average.
        seed: seed of all random numbers.
    """
    rng = np.random.default_rng(seed)
    people = max(2, round(count / each))
    persons = unit(rng.standard_normal((people, WIDTH), np.float32))
    share = rng.lognormal(0, 1, people)
    truth = rng.choice(people, count, p=share / share.sum())
    templates = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 1 << 16):
        who = truth[start : start + (1 << 16)]
        length = rng.uniform(*NOISE, (len(who), 1)).astype(np.float32) / WIDTH**0.5
        templates[start : start + len(who)] = unit(
            persons[who] + length * rng.standard_normal((len(who), WIDTH), np.float32)
        )
    place = np.arange(count)
    again = _again(place // OF_VIDEO, truth)  # no person is on screen twice at once
    start_frame = place % OF_VIDEO // 2 * 100 + rng.integers(0, 60, count) + again * 1000
    return (
        Tracks(
            video=place // OF_VIDEO,
            track_id=place % OF_VIDEO,
            start=start_frame,
            end=start_frame + rng.integers(5, 80, count),
            templates=templates,
            weights=rng.uniform(0.3, 3, count),
        ),
        truth,
    )


def _again(video: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Return the number of earlier tracks of the same person in the same video, for each track."""
    order = np.lexsort((person, video))
    new = np.r_[True, (np.diff(video[order]) != 0) | (np.diff(person[order]) != 0)]
    place = np.arange(len(order))
    found = np.empty(len(order), np.int64)
    found[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return found


def read(count: int) -> None:
    """Write rows of `count` tracks in a separate process, make templates of them, and print a line."""
    with tempfile.TemporaryDirectory() as folder:
        if (child := os.fork()) == 0:
            _write(Path(folder), count)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        start, templates = time.process_time(), Templates()
        for table, columns, add in (
            ("embeddings", EMBEDDING_COLUMNS, templates.add_embeddings),
            ("faces", FACE_COLUMNS, templates.add_faces),
        ):
            opened = pq.ParquetFile(Path(folder, f"{table}.parquet"))
            for group in range(opened.num_row_groups):
                add(opened.read_row_group(group, columns=list(columns)))
        rows_s = time.process_time() - start
        keys, _, _ = templates.tracks()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(keys):,} tracks read: {rows_s:.1f} s CPU, {time.process_time() - start:.1f} s with templates, "
        f"{peak_mb:,.0f} MB"
    )


def _write(folder: Path, count: int) -> None:
    rng, step = np.random.default_rng(1), 2730
    with (
        pq.ParquetWriter(folder / "embeddings.parquet", _EMBEDDINGS, compression="zstd") as embeddings,
        pq.ParquetWriter(folder / "faces.parquet", _FACES, compression="zstd") as faces,
    ):
        for start in range(0, count, step):
            track = np.arange(start, min(start + step, count))
            known = {"video_id": [f"{one // OF_VIDEO:016x}" for one in track], "track_id": track % OF_VIDEO}
            for writer, each in ((embeddings, 3), (faces, 30)):
                rows = pa.table({name: np.repeat(values, each) for name, values in known.items()})
                many = len(rows)
                if each == 3:
                    vectors = unit(rng.standard_normal((many, WIDTH), np.float32))
                    offsets = pa.array(np.arange(many + 1, dtype=np.int32) * WIDTH)
                    rows = rows.append_column("quality", pa.array(rng.uniform(0.1, 1, many)))
                    rows = rows.append_column("embedding", pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())))
                else:
                    rows = rows.append_column("frame_index", pa.array(np.arange(many)))
                writer.write_table(rows.cast(_EMBEDDINGS if each == 3 else _FACES))


_EMBEDDINGS = pa.schema([arrow_schema("embeddings").field(name) for name in EMBEDDING_COLUMNS])
_FACES = pa.schema([arrow_schema("faces").field(name) for name in FACE_COLUMNS])


def main() -> None:
    """Cluster tracks, or read them, and print a line."""
    if sys.argv[1:2] == ["read"]:
        read(int(sys.argv[2]))
        return
    count, each = int((*sys.argv[1:2], "10000")[0]), float((*sys.argv[2:3], "50")[0])
    tracks, truth = made_up(count, each)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu = time.perf_counter(), time.process_time()
    person = cluster(tracks, THRESHOLD)
    clustered = time.perf_counter()
    fit(tracks, person)
    end = time.perf_counter()
    found = agreement(person, truth)
    pairwise = 2 * found.precision * found.recall / (found.precision + found.recall)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{count:,} tracks of {len(np.unique(truth)):,} people, {len(np.unique(person)):,} found: cluster "
        f"{clustered - start:.1f} s, fit {end - clustered:.1f} s, CPU {time.process_time() - cpu:.1f} s; peak "
        f"{peak_mb:,.0f} MB ({before_mb:,.0f} before); pairwise F {pairwise:.4f} (precision {found.precision:.4f}, "
        f"recall {found.recall:.4f}), B-cubed F {found.b_cubed_f:.4f}"
    )


if __name__ == "__main__":
    main()
