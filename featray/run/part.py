"""Run. Process one of several parts of a run's work on this machine; results land, and a later run publishes them.

Parts need neither Ray nor communication with each other, so they suit the array tasks of a scheduler. They take no
lease: landed files are named by video, work and unit, and have the same contents whoever lands them, so a part never
overwrites the work of another part or run. The video's id decides its part; after a change of the number of parts, the
new parts resume from what has landed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Self

from featray.config import Config
from featray.errors import NotFound, OutputError, UsageError
from featray.extract.plan import Pages, VideoTask
from featray.graph.rows import Receipt
from featray.run.backlog import Backlog
from featray.run.box_names import check_box_names
from featray.run.job import Job, describe
from featray.run.local_session import LocalSession
from featray.run.progress import Progress
from featray.run.shards import cut_shards, in_pages
from featray.run.tally import Tally
from featray.sources.listing import list_videos
from featray.store.storage import delete_folder, list_folders
from featray.tables.done import read_done
from featray.tables.landing import read_outcome
from featray.tables.layout import Partition, open_output, other_releases
from featray.tables.lease import UnheldPartition
from featray.tables.runs import end_part, write_marker
from featray.tables.tombstones import Blocked


@dataclass(frozen=True)
class Part:
    """Part `index` of `count`, counted from 1.

    >>> Part.parse("3/10")
    Part(index=3, count=10)
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `I/N`.

        Raises:
            UsageError: the text has another form, or I is above N.
        """
        match = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", text)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(f"--part {text}: write it as I/N, part I of N, such as 1/10 up to 10/10")
        return cls(int(match[1]), int(match[2]))

    def takes(self, video_id: str) -> bool:
        """Return whether a video belongs to this part; ids are hashes, so parts have about equal size."""
        return int(video_id, 16) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Landed:
    """The result of a part.

    Attributes:
        job: the job, with the release of the results.
        part: the part.
        videos: number of videos whose results have all landed.
        failed: number of those with a unit without a frame.
        missing: videos without a complete result; the run that publishes retries them.
        already_published: videos of the part that needed no work.
        frames, faces: frames and faces landed by this part.
        seconds: wall time.
    """

    job: Job
    part: Part
    videos: int
    failed: int
    missing: int
    already_published: int
    frames: int
    faces: int
    seconds: float


def land_part(config: Config, part: Part, progress: Progress) -> Landed:
    """Process the videos of one part until their results have landed; publish nothing.

    Args:
        config: configuration of the whole run; the same for all parts, and for the run that publishes.
        part: the part of the videos in the config.
        progress: receives the progress.

    Raises:
        FeatrayError: the part as a whole failed; landed work is kept, and the same part resumes from it.
    """
    started = time.monotonic()
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"executor": "local"})})
    job = describe(config)
    check_box_names(config)
    videos = list_videos(config.input)
    first = next(videos)  # an empty input raises before the output is touched
    output = open_output(config.output.uri, config.output.storage_options, create=True)
    partition = UnheldPartition(Partition(output, config.dataset, job.release))
    backlog = Backlog(partition, read_done(partition), job.settings, retry_failed=config.run.retry_failed)
    todo = backlog.select(video for video in chain([first], videos) if part.takes(video.video_id))
    head = list(islice(todo, 1))
    tally = Tally(config.decode.unit_frames)
    if head:
        _execute(job, part, partition, chain(head, todo), tally, progress)
    return Landed(
        job=job,
        part=part,
        videos=tally.videos_done,
        failed=tally.videos_failed,
        missing=tally.videos_open,
        already_published=sum(backlog.published.values()),
        frames=tally.frames,
        faces=tally.faces,
        seconds=time.monotonic() - started,
    )


def _execute(
    job: Job, part: Part, partition: UnheldPartition, todo: Iterator[VideoTask], tally: Tally, progress: Progress
) -> None:
    """Process the videos, and record this part's row of `runs` for the run that publishes."""
    row, status, started, others = job.row(), "failed", time.monotonic(), other_releases(partition)
    write_marker(partition, row)
    trained = job.checkpoint.weights_trained
    progress.announce("local", f"part {part} of the videos", weights_trained=trained, others=others)
    try:
        with progress, LocalSession(job.config.cluster, job.stage_settings(partition)) as session:
            row["gpu"] = session.gpus
            progress.start(tally, session.workers, job.gpu)
            _work(session, _opened(todo, job.run_id, tally), tally, job.config, partition, progress)
        status = "done_with_failures" if tally.videos_failed or tally.videos_open else "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        _forget_erased(partition, part)
        seconds = time.monotonic() - started
        facts = {"status": status, "finished_at": datetime.now(UTC), "gpu": row["gpu"]}
        rates = {"frames_per_s": tally.frames / seconds, "faces_per_s": tally.faces / seconds}
        end_part(partition, job.run_id, {**facts, "frames": tally.frames, "faces": tally.faces, **rates})


def _work(
    session: LocalSession, pages: Pages, tally: Tally, config: Config, partition: Partition, progress: Progress
) -> None:
    """Run the videos through all stages; retry those without a complete result."""
    for attempt in range(1, config.run.max_attempts + 1):
        for receipt in session.stream(pages, lambda rest: rest):
            tally.take(_with_outcome(partition, tally, receipt))
            progress.update()
            limit = config.cluster.max_failed_fraction
            if found := tally.too_many_failed(limit):
                raise found.error(limit, "what has landed is kept. Fix the cause and run again")
        missing = tally.missing()
        if not missing or attempt == config.run.max_attempts:
            return
        tally.again(missing)
        pages = iter([missing])


def _with_outcome(partition: Partition, tally: Tally, receipt: Receipt) -> Receipt:
    """Return the receipt of a unit that had landed before, with what it says of a failure.

    A run need not read it, since its commits count the failures.
    """
    task = tally.task_of(receipt) if receipt.resumed else None
    if task is None:
        return receipt
    folder = partition.landing(task.video.video_id, task.work_key)
    try:
        outcome = read_outcome(folder, receipt.unit, receipt.part)
    except (NotFound, OutputError):  # the run that publishes reports it
        return receipt
    failure = outcome.told_failure
    if failure is None:
        return receipt
    return replace(receipt, failed=outcome.failed, error_code=failure.code, problem=failure.message)


def _opened(todo: Iterator[VideoTask], run_id: str, tally: Tally) -> Pages:
    """Yield videos in pages as they are listed, and count them; the run that publishes opens its own output shards."""
    for manifest, tasks in cut_shards(todo, run_id):
        tally.expect(manifest, tasks)
        yield from in_pages(tasks)
    tally.expect_no_more()


def _forget_erased(partition: UnheldPartition, part: Part) -> None:
    """Delete what landed of videos erased in the meantime: an erasure waits for a run's lease, but not for a part."""
    erased = Blocked(partition)
    for name in list_folders(partition.landing()):
        video_id = name.partition("-")[0]
        if re.fullmatch("[0-9a-f]{16}", video_id) and part.takes(video_id) and video_id in erased:
            delete_folder(partition.landing().child(name))
