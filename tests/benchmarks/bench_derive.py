"""Cost of tracks and events: python tests/benchmarks/bench_derive.py [faces [faces a track [mesh]]].

Writes `faces`, `blendshapes`, `frames` and, if given, `mesh` of made-up signals with many events (an episode of every
signal each second), and derives tracks and events on one core: CPU seconds and the peak memory of the process.
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

from featray.config_derive import DeriveConfig
from featray.findings.derive import Derivation
from featray.schema import ROWS_A_GROUP, arrow_schema


def rows(table: str, count: int, number: int) -> pa.Table:
    """Return the rows of one video with one track."""
    rng, columns = np.random.default_rng(number), {}
    known = {"frame_index": np.arange(count), "pts_us": np.arange(count) * 33_367}
    for field in arrow_schema(table):
        if pa.types.is_string(field.type):
            text = f"{number:016x}" if field.name == "video_id" else "x"
            columns[field.name] = pa.repeat(pa.scalar(text), count)
        elif pa.types.is_float32(field.type):
            signal = np.repeat(rng.random(count // 15 + 1), 15)[:count] + rng.normal(0, 0.05, count)
            columns[field.name] = pa.array(np.clip(signal, 0, 1).astype(np.float32))
        elif field.name == "mesh_xyz":
            points = (rng.random(1434) * 300 + rng.normal(0, 1, (count, 1434))).astype(np.float32)
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * 1434)
            columns[field.name] = pa.ListArray.from_arrays(offsets, pa.array(points.ravel()))
        elif pa.types.is_list(field.type):
            columns[field.name] = pa.nulls(count, field.type)
        else:
            columns[field.name] = pa.array(known.get(field.name, np.zeros(count, np.int64))).cast(field.type)
    return pa.table(columns, schema=arrow_schema(table))


def write(path: Path, table: str, faces: int, of_track: int) -> None:
    """Write one file, in row groups like the writer's."""
    with pq.ParquetWriter(path, arrow_schema(table), compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for number in range(faces // of_track):
            waiting.append(rows(table, of_track, number))
            if sum(map(len, waiting)) >= ROWS_A_GROUP[table] or number == faces // of_track - 1:
                writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS_A_GROUP[table])
                waiting = []


def main() -> None:
    """Write in a separate process, derive, print a line."""
    faces, of_track = (int(text) for text in (*sys.argv[1:3], "1000000", "2000")[:2])
    tables = ("faces", "blendshapes", "frames", *sys.argv[3:4])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        paths = {table: Path(folder, f"{table}.parquet") for table in tables}
        if (child := os.fork()) == 0:
            for table, path in paths.items():
                write(path, table, faces, of_track)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        start, found = time.process_time(), {"tracks": 0, "events": 0}
        files = {table: [pq.ParquetFile(path)] for table, path in paths.items()}
        for table, derived in Derivation(DeriveConfig())(files):
            found[table] += derived.num_rows
        seconds = time.process_time() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{faces:,} faces, {of_track:,} a track, {', '.join(tables)}: {seconds:.1f} s CPU, {peak_mb:.0f} MB, "
        f"{found['tracks']:,} tracks, {found['events']:,} events"
    )


if __name__ == "__main__":
    main()
