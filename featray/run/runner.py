"""Run. One run from config to tables: find the work, process it, publish, record the run.

    describe the job -> open the output -> take its lease -> recover from a killed run
    -> list -> choose an executor -> execute -> record

If there is no work, no executor is started.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice

from featray.config import Config
from featray.errors import StorageError
from featray.extract.plan import VideoTask
from featray.run.backlog import Backlog, Deleted
from featray.run.box_names import check_box_names
from featray.run.execution import Counts, Execution
from featray.run.job import Job, describe
from featray.run.progress import Progress
from featray.run.session import LOCAL_VIDEOS, choose_executor, open_session
from featray.sources.listing import list_videos
from featray.sources.passed import PassedOver
from featray.tables.layout import Partition, open_output, other_releases
from featray.tables.lease import Lease, hold
from featray.tables.runs import begin_run, end_run
from featray.upkeep.derive import derive_held
from featray.upkeep.recover import drop_videos, recover, sweep_temporary
from featray.upkeep.renew import renew_extra

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The summary of a run.

    Attributes:
        status: `done`, `done_with_failures` or `nothing_to_do`.
        videos: number of videos published by this run, by status: ok, partial, failed.
        already_published: input videos that needed no work, by status; `erased` videos must not be processed.
        erased: id and URI of one of the erased ones.
        deleted: published videos whose source no longer exists.
        seconds: wall time.
        passed: files in the input that were skipped.
        renewed: published videos whose other columns of the manifest were renewed.
        derived_again: shards whose tracks and events were derived again, because their neutral videos or persons have
            changed or rows were erased.
        several_streams: videos published by this run with more than one video stream, of which only one is processed.
    """

    job: Job
    status: str
    videos: dict[str, int]
    already_published: dict[str, int]
    deleted: Deleted
    frames: int
    faces: int
    seconds: float
    passed: PassedOver = field(default_factory=PassedOver)
    erased: tuple[str, str] | None = None
    renewed: int = 0
    derived_again: int = 0
    several_streams: int = 0


def run(config: Config, progress: Progress) -> Summary:
    """Run the main job.

    Raises:
        LeaseError: another run holds the dataset and release, or has taken them over.
        FeatrayError: the run as a whole failed; landed work is kept, and the next run resumes from it.
    """
    started = time.monotonic()
    job = describe(config)
    check_box_names(config)
    passed = PassedOver()
    videos = list_videos(config.input, passed)
    first = next(videos)  # an empty input raises before the output is touched
    output = open_output(config.output.uri, config.output.storage_options, create=True)
    partition = Partition(output, config.dataset, job.release)
    others = other_releases(partition)
    with hold(partition, job.run_id) as lease:
        done = recover(lease.partition, job.run_id)
        backlog = Backlog(partition, done, job.settings, retry_failed=config.run.retry_failed)
        todo = backlog.select(chain([first], videos))
        head = list(islice(todo, 1))
        counts = _execute(job, lease, head, todo, progress, started, others) if head else Counts()
        deleted = backlog.deleted(config.input, passed)
        if deleted.count and config.run.drop_deleted:
            drop_videos(lease.partition, deleted.videos, f"drop-{job.run_id}")
        renew_extra(lease.partition, backlog.renewed, job.run_id)
        derived_again = 0
        if job.derive is not None and job.derive.crosses_shards:
            derived = derive_held(lease, job.derive, config.cluster.executor)
            derived_again = derived.again
            if derived.note:
                log.warning("derive: %s", derived.note)
        sweep_temporary(lease.partition)
    return Summary(
        job=job,
        status=counts.status if head else "nothing_to_do",
        videos=counts.by_status(),
        already_published=backlog.published,
        deleted=deleted,
        frames=counts.frames,
        faces=counts.faces,
        seconds=time.monotonic() - started,
        passed=passed,
        erased=backlog.erased,
        renewed=sum(map(len, backlog.renewed.values())),
        derived_again=derived_again,
        several_streams=counts.several_streams,
    )


def _count(head: list[VideoTask], rest: Iterator[VideoTask]) -> int:
    """List more videos into `head` and return their number, up to the limit that decides the executor."""
    head += islice(rest, LOCAL_VIDEOS + 1 - len(head))
    return len(head)


def _execute(
    job: Job,
    lease: Lease,
    head: list[VideoTask],
    rest: Iterator[VideoTask],
    progress: Progress,
    started: float,
    others: list[str],
) -> Counts:
    """Process the videos; write the run's row of `runs` before and after."""
    partition, row = lease.partition, job.row()
    begin_run(partition, row)
    try:
        executor, why = choose_executor(job.config.cluster, lambda: _count(head, rest))
        progress.announce(executor, why, weights_trained=job.checkpoint.weights_trained, others=others)
        with progress, open_session(executor, job.config.cluster, job.stage_settings(partition)) as session:
            row["gpu"] = session.gpus if job.gpu or job.config.decodes_on_gpu else None
            execution = Execution(job, lease, session, progress)
            execution.run(chain(head, rest))
    except BaseException as error:
        with suppress(StorageError):  # another run took over and owns the record, or the storage ended this run
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            end_run(partition, {**row, "status": status, "finished_at": datetime.now(UTC)})
        raise
    counts, seconds = execution.counts, time.monotonic() - started
    rates = {"frames_per_s": counts.frames / seconds, "faces_per_s": counts.faces / seconds}
    ended = {**row, **asdict(counts), **rates, "status": counts.status, "finished_at": datetime.now(UTC)}
    end_run(partition, ended)
    return counts
