"""One run from config to tables: find out what is to do, feed the graph, publish, account.

    describe the job -> open the output -> take its lease -> recover what a killed run left
    -> list -> graph -> receipts -> publish complete shards -> try again what is missing -> account

Without work to do, Ray is not started.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from featray.config import Config, cache_dir, path_field_names
from featray.errors import LeaseError, RunError
from featray.extract.plan import VideoTask
from featray.faces.detector import DetectorFiles
from featray.faces.detectors import detector_sha256
from featray.graph import metrics
from featray.graph.ray_session import Session, available_gpus
from featray.graph.stages import InferSettings, land_lost
from featray.graph.workers import expects_gpu
from featray.identity import release_name, result_settings
from featray.model.checkpoint import Checkpoint
from featray.model.engines import choose
from featray.model.source import resolve_checkpoint
from featray.run.backlog import Backlog, Deleted
from featray.run.progress import Progress
from featray.run.shards import open_shards, unfinished_first
from featray.run.tally import Tally
from featray.sources.listing import list_videos
from featray.tables.commits import Commit
from featray.tables.layout import Partition, open_output
from featray.tables.lease import Lease, hold
from featray.tables.provenance import WeightsFacts, footer, run_row
from featray.tables.publish import PublishSettings
from featray.tables.runs import begin_run, end_run
from featray.upkeep.recover import drop_videos, recover, sweep_temporary
from featray.video.decoders import open_decoder

log = logging.getLogger(__name__)

_ENOUGH_TO_JUDGE = 20
"""Videos seen before a high share of failures stops a run."""

_COUNTED = ("videos_ok", "videos_partial", "videos_failed", "frames", "faces")


@dataclass(frozen=True)
class Job:
    """What a run knows about itself before it starts: weights, engine, release."""

    config: Config
    run_id: str
    checkpoint: Checkpoint
    engine: str
    precision: str
    settings: dict[str, Any]
    release: str
    gpu: bool


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes:
        status: `done`, `done_with_failures` or `nothing_to_do`.
        videos: published by this run, by status: ok, partial, failed.
        already_published: videos of the input that needed no work, by status; `erased` are those that may have none.
        deleted: published videos whose source is gone.
        seconds: wall time.
    """

    job: Job
    status: str
    videos: dict[str, int]
    already_published: dict[str, int]
    deleted: Deleted
    frames: int
    faces: int
    seconds: float


def describe(config: Config, gpus: float | None = None) -> Job:
    """Resolve weights, engine and precision, and from them the name of the release.

    Args:
        config: of the run.
        gpus: that the run will have; None: the cluster is asked, to which it connects if there is one.
    """
    open_decoder(config.decode.backend)  # one that is not installed is said here, not by every video
    gpu = expects_gpu(available_gpus() if gpus is None else gpus, config.cluster)
    if gpu and config.model.engine == "openvino" and config.cluster.gpus_per_worker != "auto":
        log.warning("model.engine: openvino runs on CPUs; its workers hold cluster.gpus_per_worker GPUs and use none")
        gpu = False
    engine, precision = choose(config.model.engine, config.model.precision, gpu=gpu)
    checkpoint = resolve_checkpoint(
        config.model.checkpoint,
        revision=config.model.revision,
        sha256=config.model.sha256,
        accept_license=config.model.accept_license,
        cache_dir=cache_dir(),
    )
    settings = result_settings(
        config,
        weights_sha256=checkpoint.sha256,
        detector_sha256=detector_sha256(config.detect, DetectorFiles(cache_dir(), config.input.storage_options)),
        precision=precision,
    )
    return Job(
        config=config,
        run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        checkpoint=checkpoint,
        engine=engine,
        precision=precision,
        settings=settings,
        release=release_name(checkpoint.name, settings),
        gpu=gpu,
    )


def run(config: Config, progress: Progress) -> Summary:
    """Run the main job.

    Raises:
        LeaseError: another run holds the dataset and release, or has taken them over.
        FeatrayError: the run as a whole failed; what has landed is kept, and a rerun goes on from it.
    """
    started = time.monotonic()
    job = describe(config)
    videos = list_videos(config.input)
    first = next(videos)  # an input that names nothing ends here, before the output is touched
    output = open_output(config.output.uri, config.output.storage_options, create=True)
    partition = Partition(output, config.dataset, job.release)
    with hold(partition, job.run_id) as lease:
        done = recover(partition, job.run_id, lease.fence.check)
        backlog = Backlog(partition, done, job.settings, retry_failed=config.run.retry_failed)
        todo = backlog.select(chain([first], videos))
        begin = next(todo, None)
        counts = dict.fromkeys(_COUNTED, 0)
        if begin is not None:
            counts = _run_job(job, lease, chain([begin], todo), progress, started)
        deleted = backlog.deleted(config.input)
        if deleted.count and config.run.drop_deleted:
            drop_videos(partition, deleted.videos, f"drop-{job.run_id}", lease.fence.check)
        sweep_temporary(partition, lease.fence.check)
    return Summary(
        job=job,
        status="nothing_to_do" if begin is None else _status(counts),
        videos=_by_status(counts),
        already_published=backlog.published,
        deleted=deleted,
        frames=counts["frames"],
        faces=counts["faces"],
        seconds=time.monotonic() - started,
    )


def _row(job: Job) -> dict[str, Any]:
    return run_row(
        job.config,
        run_id=job.run_id,
        release=job.release,
        weights=_weights_facts(job),
        engine=job.engine,
        precision=job.precision,
        settings=job.settings,
    )


def _run_job(job: Job, lease: Lease, todo: Iterator[VideoTask], progress: Progress, started: float) -> dict[str, int]:
    partition, row = lease.fence.partition, _row(job)
    begin_run(partition, row, lease.fence.check)
    try:
        counts = _execute(job, lease, todo, row, progress)
    except BaseException as error:
        with suppress(LeaseError):  # the run that took over has written the last word on this one
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            end_run(partition, {**row, "status": status, "finished_at": datetime.now(UTC)}, lease.fence.check)
        raise
    seconds = time.monotonic() - started
    rates = {"frames_per_s": counts["frames"] / seconds, "faces_per_s": counts["faces"] / seconds}
    ended = {**row, **counts, **rates, "status": _status(counts), "finished_at": datetime.now(UTC)}
    end_run(partition, ended, lease.fence.check)
    return counts


def _execute(
    job: Job, lease: Lease, todo: Iterator[VideoTask], row: dict[str, Any], progress: Progress
) -> dict[str, int]:
    partition = lease.fence.partition
    publishing = PublishSettings(
        run_id=job.run_id,
        tables=tuple(job.config.output.tables),
        path_fields=tuple(name for name in path_field_names(job.config.input.path_fields or "") if name != "name"),
        footer=footer(row),
        fence=lease.fence,
    )
    tally = Tally()
    counts = dict.fromkeys(_COUNTED, 0)
    pages = open_shards(todo, partition, job.run_id, tally)
    with progress, Session(job.config) as session:
        row["gpu"] = session.gpus if job.gpu else None
        progress.start(tally, session.workers, job.gpu)
        for attempt in range(1, job.config.run.max_attempts + 1):
            for receipt in session.stream(
                partition,
                job.run_id,
                infer_settings(job),
                job.settings["detector"],
                pages,
                lambda rest: unfinished_first(tally, rest),
            ):
                lease.check()
                complete = tally.take(receipt)
                metrics.record_receipt(receipt, partition.dataset)
                metrics.record(metrics.VIDEOS_OPEN, tally.videos_open, dataset=partition.dataset)
                progress.update()
                # What may pass is a failure in the last attempt, or as long as nothing else has come of any video.
                is_judged = attempt == job.config.run.max_attempts or not (tally.videos_done or tally.frames)
                _stop_if_hopeless(tally, job.config, tally.videos_troubled if is_judged else 0)
                if complete:
                    session.publish(partition, complete, publishing)
                _add(session.published(wait=False), counts)
            missing = tally.missing()
            if not missing or attempt == job.config.run.max_attempts:
                break
            log.warning("attempt %d: %d videos without a complete result are tried again", attempt, len(missing))
            tally.again(missing)
            pages = iter([missing])
        lease.check()
        _stop_if_hopeless(tally, job.config, len(tally.given_up()))
        land_lost(partition, tally.given_up(), job.run_id, tally.problems())
        for manifest in tally.open_shards():
            session.publish(partition, manifest, publishing)
        _add(session.published(wait=True), counts)
        metrics.record(metrics.VIDEOS_OPEN, 0, dataset=partition.dataset)
    return counts


def _stop_if_hopeless(tally: Tally, config: Config, incomplete: int) -> None:
    """End the run if too many videos failed; `incomplete` ones, which are not done, count as failed too."""
    limit = config.cluster.max_failed_fraction
    done, failed = tally.videos_done + incomplete, tally.videos_failed + incomplete
    if done >= _ENOUGH_TO_JUDGE and failed > limit * done:
        code, message = tally.common_failure()
        raise RunError(
            f"{failed} of {done} videos failed, more than cluster.max_failed_fraction "
            f"({limit:g}), most often with {code} ({message}); mend that, or set the limit to 1: then every failure "
            "is in the errors table"
        )


def infer_settings(job: Job) -> InferSettings:
    """What inference workers of this run are told."""
    model = job.config.model
    return InferSettings(
        spec=model.checkpoint,
        revision=model.revision,
        weights_sha256=job.checkpoint.sha256,
        accept_license=model.accept_license,
        engine=job.engine,
        precision=job.precision,
        recipe=model.recipe,
        batch_size=model.batch_size,
        threads=1,
        gpu=job.gpu,
        cache_dir=cache_dir(),
    )


def _weights_facts(job: Job) -> WeightsFacts:
    return WeightsFacts(
        model_name=job.checkpoint.name,
        model_file=job.config.model.checkpoint,
        weights_sha256=job.checkpoint.sha256,
        hub_revision=job.checkpoint.revision,
        license=job.checkpoint.license,
        weights_trained=job.checkpoint.weights_trained,
    )


def _add(commits: list[Commit], counts: dict[str, int]) -> None:
    """Count what commits hold. They are not kept: a run may publish millions of videos."""
    for video in (video for commit in commits for video in commit.videos):
        counts[f"videos_{video.status}"] += 1
        counts["frames"] += video.frames
        counts["faces"] += video.faces


def _by_status(counts: dict[str, int]) -> dict[str, int]:
    return {name.removeprefix("videos_"): count for name, count in counts.items() if name.startswith("videos_")}


def _status(counts: dict[str, int]) -> str:
    return "done_with_failures" if counts["videos_failed"] or counts["videos_partial"] else "done"
