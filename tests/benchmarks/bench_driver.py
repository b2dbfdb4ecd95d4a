"""The driver's own work for each unit, without workers: python tests/benchmarks/bench_driver.py [units].

A separate process cuts a made-up listing into shards, writes their manifests, converts pages to JSON as the graph's
queue does, and counts one receipt a unit as the run's loop does, with one page of videos in flight at a time.
Prints units a minute and memory. The driver's cost of Ray's own streaming is not included.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict

import pyarrow as pa
from rich.console import Console

from featray.extract.plan import VideoTask
from featray.graph import metrics
from featray.graph.rows import RECEIPT_SCHEMA, Receipt
from featray.graph.workers import Workers
from featray.records import dump, load
from featray.run.progress import Progress
from featray.run.shards import open_shards
from featray.run.tally import Tally
from featray.sources.listing import Video
from featray.tables.layout import Partition, open_output

UNITS_A_VIDEO = 5


def listing(videos: int) -> Iterator[VideoTask]:
    """Yield videos of ten sites, ordered by site."""
    for i in range(videos):
        uri = f"s3://bucket/site{10 * i // videos}/session-{i:08d}/camera.mp4"
        fields = {"site": f"site{10 * i // videos}"}
        yield VideoTask(Video(f"{i:016x}", uri, uri, 50_000_000, f"etag-{i}", fields=fields), f"{i:064x}", "")


def receipts(page: list[VideoTask]) -> Iterator[dict[str, object]]:
    """Yield the results of a page, as the driver gets them: rows of Arrow blocks of one row each."""
    seconds = json.dumps({"decode": 4.2, "detect": 3.1, "crop": 0.4, "infer": 30.5})
    for task in page:
        for unit in range(UNITS_A_VIDEO):
            one = Receipt(
                task.shard,
                task.video.video_id,
                unit,
                UNITS_A_VIDEO,
                1,
                last=True,
                frames=512,
                faces=600,
                seconds=seconds,
            )
            yield from pa.Table.from_pylist([asdict(one)], schema=RECEIPT_SCHEMA).to_pylist()


def drive(units: int) -> None:
    """Process these units, and print time and memory."""
    tally, progress = Tally(), Progress(Console(file=io.StringIO()))
    with tempfile.TemporaryDirectory() as folder, progress:
        partition = Partition(open_output(folder, create=True), "d", "r")
        progress.start(tally, Workers(1, 1, 1, 1, 1, 1, 0), False)
        began, spent, complete = time.perf_counter(), time.process_time(), 0
        for page in open_shards(listing(units // UNITS_A_VIDEO), partition, "run", tally):
            sent = [load(VideoTask, text) for text in [dump(task) for task in page]]
            for row in receipts(sent):
                receipt = Receipt(**row)
                complete += tally.take(receipt) is not None
                metrics.record_receipt(receipt, "d")
                progress.update()
        wall, cpu = time.perf_counter() - began, time.process_time() - spent
    assert tally.videos_done == units // UNITS_A_VIDEO and not tally.missing()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{units:,} units, {tally.videos_done:,} videos, {complete} shards: {60 * units / wall:,.0f} units/minute, "
        f"{1e6 * cpu / units:.0f} µs CPU a unit, peak {peak:.0f} MB"
    )


def main() -> None:
    """Measure both sizes, or the given one."""
    if sys.argv[1:2] == ["--drive"]:
        drive(int(sys.argv[2]))
        return
    for units in [int(sys.argv[1])] if len(sys.argv) > 1 else [10_000, 100_000]:
        subprocess.run([sys.executable, __file__, "--drive", str(units)], check=True)


if __name__ == "__main__":
    main()
