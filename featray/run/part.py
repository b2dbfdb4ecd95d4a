"""Run. One part of many of a run's work, on this machine alone: its results land, and a later run publishes them.

Parts need no Ray and no word from each other, so they suit the array tasks of a scheduler. They take no lease: what
lands is named by video, work and unit, and is the same whoever lands it, so nothing is written that another part or a
run could lose. Which part does a video follows from its id; another number of parts goes on with what has landed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Self

from featray.config import Config
from featray.errors import UsageError
from featray.extract.plan import Pages, VideoTask
from featray.run.backlog import Backlog
from featray.run.job import Job, describe
from featray.run.local_session import LocalSession
from featray.run.progress import Progress
from featray.run.shards import cut_shards, in_pages
from featray.run.tally import Tally
from featray.sources.listing import list_videos
from featray.store.storage import delete_folder, list_folders
from featray.tables.done import read_done
from featray.tables.layout import Partition, open_output
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
            UsageError: it is none.
        """
        match = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", text)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(f"--part {text}: is I/N, part I of N, such as 1/10 up to 10/10")
        return cls(int(match[1]), int(match[2]))

    def takes(self, video_id: str) -> bool:
        """Return whether a video belongs to this part; ids are hashes, so parts are of about equal size."""
        return int(video_id, 16) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Landed:
    """The result of a part.

    Attributes:
        job: whose release the results are of.
        part: which one.
        videos: whose results have all landed; of these, `failed` gave a unit without a frame.
        missing: videos without a complete result, which the run that publishes tries again.
        already_published: videos of the part that needed no work.
        frames, faces: that landed in this part.
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
    """Work on the videos of one part until their results have landed; publish nothing.

    Args:
        config: of the whole run; the same for all parts, and for the run that publishes.
        part: of the videos that the config names.
        progress: told how it goes.

    Raises:
        FeatrayError: the part as a whole failed; what has landed is kept, and the same part goes on from it.
    """
    started = time.monotonic()
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"executor": "local"})})
    job = describe(config)
    videos = list_videos(config.input)
    first = next(videos)  # an input that names nothing ends here, before the output is touched
    output = open_output(config.output.uri, config.output.storage_options, create=True)
    partition = UnheldPartition(Partition(output, config.dataset, job.release))
    backlog = Backlog(partition, read_done(partition), job.settings, retry_failed=config.run.retry_failed)
    todo = backlog.select(video for video in chain([first], videos) if part.takes(video.video_id))
    head = list(islice(todo, 1))
    tally = Tally()
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
    """Work on the videos, and keep for the run that publishes what it says of this one in `runs`."""
    row, status, started = job.row(), "failed", time.monotonic()
    write_marker(partition, row)
    progress.announce("local", f"part {part} of the videos", weights_trained=job.checkpoint.weights_trained)
    try:
        with progress, LocalSession(job.config.cluster, job.stage_settings(partition)) as session:
            row["gpu"] = session.gpus
            progress.start(tally, session.workers, job.gpu)
            _work(session, _opened(todo, job.run_id, tally), tally, job.config, progress)
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


def _work(session: LocalSession, pages: Pages, tally: Tally, config: Config, progress: Progress) -> None:
    """Put the videos through all stages, those without a complete result again."""
    for attempt in range(1, config.run.max_attempts + 1):
        for receipt in session.stream(pages, lambda rest: rest):
            tally.take(receipt)
            progress.update()
            limit = config.cluster.max_failed_fraction
            if found := tally.too_many_failed(limit):
                raise found.error(limit, "what has landed is kept. Fix that and run again")
        missing = tally.missing()
        if not missing or attempt == config.run.max_attempts:
            return
        tally.again(missing)
        pages = iter([missing])


def _opened(todo: Iterator[VideoTask], run_id: str, tally: Tally) -> Pages:
    """Count videos as they are listed and hand them on; the run that publishes opens output shards of its own."""
    for manifest, tasks in cut_shards(todo, run_id):
        tally.expect(manifest, tasks)
        yield from in_pages(tasks)
    tally.expect_no_more()


def _forget_erased(partition: UnheldPartition, part: Part) -> None:
    """Delete what landed of videos that were erased meanwhile: an erasure waits for a run's lease, not for a part."""
    erased = Blocked(partition)
    for name in list_folders(partition.landing()):
        video_id = name.partition("-")[0]
        if re.fullmatch("[0-9a-f]{16}", video_id) and part.takes(video_id) and video_id in erased:
            delete_folder(partition.landing().child(name))
