"""Time to recognise an unchanged dataset as done: python tests/benchmarks/bench_backlog.py [videos].

Makes that many small files and the commits that featray would have written for them. Then a separate process
does what a scheduled run does before it reports "nothing to do": lease, recovery, listing, selection.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from featray.config import InputConfig
from featray.identity import work_keys
from featray.run.backlog import Backlog
from featray.sources.listing import list_videos
from featray.tables.commits import Commit, CommittedFile, CommittedVideo, create_commit
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold
from featray.upkeep.recover import recover

SETTINGS = {"weights": "0" * 64, "decode": {"sample": "all"}}
A_SHARD = 1000


def make(folder: Path, videos: int) -> None:
    """Make the files, and commits for shards of a thousand."""
    for number in range(videos):
        if number % A_SHARD == 0:
            (folder / "in" / f"site{number // A_SHARD:05d}").mkdir(parents=True)
        (folder / "in" / f"site{number // A_SHARD:05d}" / f"{number:08d}.mp4").write_bytes(b"x")
    partition = partition_of(folder)
    key = work_keys(SETTINGS)
    listing = list_videos(input_of(folder))
    for number in range(0, videos, A_SHARD):
        page, name = list(islice(listing, A_SHARD)), f"{number:012x}"
        committed = [CommittedVideo(v.video_id, v.uri, key(v.content_id), "ok", 100, 100) for v in page]
        files = [CommittedFile(t, f"{t}/part-{name}-000.parquet", 1, 1, "0" * 64) for t in ("faces", "videos")]
        create_commit(partition, Commit(name, "run", 1, files, committed))


def partition_of(folder: Path) -> Partition:
    return Partition(open_output(str(folder / "out"), create=True), "d", "r")


def input_of(folder: Path) -> InputConfig:
    return InputConfig(uris=[f"{folder}/in/**/*.mp4"])


def recognise(folder: Path) -> None:
    """Recognise the dataset as done, and print the time of each step."""
    began, laps = time.perf_counter(), {}
    partition = partition_of(folder)
    with hold(partition, "again") as lease:
        done = recover(lease.partition, "again")
        laps["recover_s"] = time.perf_counter() - began
        backlog = Backlog(partition, done, SETTINGS, retry_failed=False)
        todo = sum(1 for _ in backlog.select(list_videos(input_of(folder))))
        gone = backlog.deleted(input_of(folder)).count
    usage = resource.getrusage(resource.RUSAGE_SELF)
    laps |= {
        "wall_s": time.perf_counter() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_mb": usage.ru_maxrss / 1024,
    }
    counts = {"published": backlog.published, "todo": todo, "deleted": gone}
    print(json.dumps(counts | {name: round(value, 1) for name, value in laps.items()}))


def main() -> None:
    if sys.argv[1:2] == ["--recognise"]:
        recognise(Path(sys.argv[2]))
        return
    videos = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), videos)
        subprocess.run([sys.executable, __file__, "--recognise", folder], check=True)


if __name__ == "__main__":
    main()
