"""Run. Predict a run before it starts: videos, frames, faces, hours, bytes, cost. Used by `featray plan`.

Lists the input as a run does, leaves out published videos, plans a random sample of the rest, and runs short stretches
of a few of them through the run's own decoding, detection, inference and publishing, on this machine, into a temporary
folder. It starts no Ray, writes nothing to the output, and downloads nothing. Totals are extrapolated by the sample's
share of the listed bytes; if the sample holds few of many videos, they are as rough as the videos are different.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from featray.config import Config, cache_dir
from featray.errors import OutputError, printable
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoPlan
from featray.graph.machine import local_cpus, local_gpus
from featray.identity import work_keys
from featray.model.source import find_stand_in
from featray.run.job import Job, describe
from featray.run.shards import SHARD_BYTES, SHARD_VIDEOS
from featray.run.trial import Measured, frames_promised, measure
from featray.sources.listing import Video, list_videos
from featray.sources.passed import PassedOver
from featray.tables.done import read_done
from featray.tables.layout import Partition, open_output, other_releases
from featray.tables.tombstones import Blocked

_GPU_FACES_PER_S: Final = 202.0
"""The lowest of py-feat's own figures: an RTX 3090, batch 16, one face per frame, bf16. Used without a local GPU."""


@dataclass
class Listed:
    """The listed input, and a random sample of the work.

    Attributes:
        videos, bytes: work.
        published, erased: videos that need no work, or must not be processed.
        others: the dataset's other releases, if this one is new.
        folders: distinct values of the path fields.
        sample: some of the videos.
        passed: files that were skipped.
    """

    videos: int = 0
    bytes: int = 0
    published: int = 0
    erased: int = 0
    others: list[str] = field(default_factory=list)
    folders: set[tuple[str | None, ...]] = field(default_factory=set)
    sample: list[Video] = field(default_factory=list)
    passed: PassedOver = field(default_factory=PassedOver)


def forecast(
    config: Config,
    *,
    sample: int = 20,
    cpu_hour_price: float | None = None,
    gpu_hour_price: float | None = None,
) -> dict[str, Any]:
    """Predict a run of this config; the keys of the result are stable.

    Args:
        config: the run's configuration.
        sample: number of videos whose headers are read.
        cpu_hour_price: price of one CPU thread per hour, in any currency; None: not priced.
        gpu_hour_price: price of one GPU per hour, in the same currency.

    Raises:
        FeatrayError: anything that would end the run before it starts, such as an empty listing or missing weights.
    """
    asked = config.cluster.gpus_per_worker
    stand_in = _stand_in(config)
    planned = config if stand_in is None else _with_weights(config, stand_in)
    job = describe(
        planned, local_gpus() or (0.0 if asked == "auto" else asked)
    )  # the cluster may have GPUs that this machine lacks
    listed = _list(config, job, sample, known=stand_in is None)
    plans, plan_seconds = _probe(job, listed.sample)
    good = [(video, plan) for video, plan in zip(listed.sample, plans, strict=True) if not plan.failure]
    measured = measure(job, good)
    scale = _scale(listed)
    frames = scale * sum(frames_promised(plan, config) for _, plan in good)
    faces = frames * measured.face_share
    hours = _hours(job, measured, frames, faces, scale * plan_seconds)
    return {
        "release": job.release if stand_in is None else None,
        "other_releases": listed.others,
        "weights_trained": job.checkpoint.weights_trained if stand_in is None else None,
        "videos": listed.videos,
        "already_published": listed.published,
        "erased": listed.erased,
        "input_bytes": listed.bytes,
        "passed_over": dict(listed.passed.files),
        "units": round(scale * sum(len(plan.units) for plan in plans)),
        "frames": round(frames),
        "faces": round(faces),
        "several_streams": round(scale * sum(bool(plan.header and plan.header.other_streams) for plan in plans)),
        "unreadable_videos": round(scale * (len(plans) - len(good))),
        "unreadable_examples": _unreadable(listed.sample, plans),
        **hours,
        "places": _places(job, measured, hours, faces),
        "output_bytes": round(_output_bytes(listed, measured, frames, faces)),
        "memory_gib": {
            "decode_worker": round(measured.decode_bytes / 2**30, 2),
            "infer_worker": round(measured.infer_bytes / 2**30, 2),
        },
        "cost": _cost(hours, cpu_hour_price, gpu_hour_price),
        "sample": {
            "videos": len(plans),
            "stretches": measured.videos,
            "frames": measured.frames,
            "faces": measured.faces,
        },
        "stand_in": stand_in,
        "decoded_without_gpu": config.decodes_on_gpu and not local_gpus(),
    }


def _unreadable(videos: list[Video], plans: list[VideoPlan]) -> list[str]:
    """Return one line about the first unreadable video of each error code: URI, code and message."""
    found: dict[str, str] = {}
    for video, plan in zip(videos, plans, strict=True):
        if plan.failure:
            message = plan.failure.message.removeprefix(f"{video.uri}: ")
            line = f"{video.uri}: {plan.failure.code}: {message}"
            found.setdefault(plan.failure.code, printable(" ".join(line.split())[:400]))
    return list(found.values())


def _stand_in(config: Config) -> str | None:
    """Return the synthetic weights to plan with if a run would first have to download its own, else None."""
    model = config.model
    return find_stand_in(model.checkpoint, model.revision, model.accept_license, cache_dir())


def _with_weights(config: Config, checkpoint: str) -> Config:
    model = config.model.model_copy(update={"checkpoint": checkpoint, "revision": None, "sha256": None})
    return config.model_copy(update={"model": model})


def _places(job: Job, measured: Measured, hours: dict[str, Any], faces: float) -> list[dict[str, Any]]:
    """Return the wall time on this computer, and on the CPUs and GPUs that the config names.

    Assumes that all CPUs are always busy, and GPUs work in parallel with them.
    """
    places = []
    cpus, gpus, cluster = float(local_cpus()), local_gpus(), job.config.cluster
    on_cpus = hours["cpu_hours"]
    if job.gpu and not gpus:
        on_cpus += faces * (measured.cpu_infer_seconds or 0.0) / max(measured.faces, 1) / 3600
    if not job.gpu or gpus or measured.cpu_infer_seconds is not None or not faces:
        here = max(on_cpus / cpus, hours["gpu_hours"] / gpus if gpus else 0.0)
        places.append({"place": "this computer", "cpus": cpus, "gpus": gpus, "hours": round(here, 6)})
    if cluster.grows:
        cpus = cpus if cluster.cpus == "auto" else cluster.cpus
        gpus = gpus if cluster.gpus == "auto" else cluster.gpus
        there = max(hours["cpu_hours"] / cpus, hours["gpu_hours"] / gpus if gpus else 0.0)
        places.append({"place": "config", "cpus": cpus, "gpus": gpus, "hours": round(there, 6)})
    return places


def _list(config: Config, job: Job, sample: int, *, known: bool) -> Listed:
    """Count the listing, and draw a sample of the unpublished videos (reservoir sampling with a fixed seed).

    `known`: whether the job's release is that of the run; only then are published videos known.
    """
    listed, chosen = Listed(), random.Random(0)
    partition = _partition(config, job)
    key, done = work_keys(job.settings), read_done(partition) if partition and known else None
    listed.others = other_releases(partition) if partition and known else []
    erased: Blocked | tuple[str, ...] = Blocked(partition) if partition else ()
    for video in list_videos(config.input, listed.passed):
        if video.video_id in erased:
            listed.erased += 1
            continue
        record = done.find(video.video_id) if done else -1
        if done and record >= 0 and done.is_done(record, key(video.content_id)):
            listed.published += 1
            continue
        listed.videos += 1
        listed.bytes += max(video.size_bytes, 0)
        listed.folders.add(tuple(video.fields.values()))
        if len(listed.sample) < sample:
            listed.sample.append(video)
        elif (place := chosen.randrange(listed.videos)) < sample:
            listed.sample[place] = video
    return listed


def _partition(config: Config, job: Job) -> Partition | None:
    try:
        output = open_output(config.output.uri, config.output.storage_options)
    except OutputError:
        return None  # no output yet
    return Partition(output, config.dataset, job.release)


def _probe(job: Job, videos: Sequence[Video]) -> tuple[list[VideoPlan], float]:
    """Return the plans of the sample, and the seconds it took to make them."""
    decoder = IsolatedDecoder(job.child_settings().without_gpu())
    try:
        if videos:
            decoder.plan(videos[0])  # the first one also starts the process
        began = time.perf_counter()
        return [decoder.plan(video) for video in videos], time.perf_counter() - began
    finally:
        decoder.close()


def _scale(listed: Listed) -> float:
    """Return the factor from the sample to all videos: by bytes if they are known, since long videos are large."""
    if not listed.sample:
        return 0.0
    sizes = [video.size_bytes for video in listed.sample]
    if listed.bytes > 0 and min(sizes) > 0 and len(sizes) < listed.videos:
        return listed.bytes / sum(sizes)
    return listed.videos / len(sizes)


def _shards(listed: Listed) -> int:
    most = max(listed.videos / SHARD_VIDEOS, listed.bytes / SHARD_BYTES)
    return max(len(listed.folders), int(most + 0.5), 1) if listed.videos else 0


def _output_bytes(listed: Listed, measured: Measured, frames: float, faces: float) -> float:
    rows = {"frames": frames, "videos": listed.videos, "errors": 0.0}
    of_rows = sum(each * rows.get(table, faces) for table, each in measured.row_bytes.items())
    return of_rows + _shards(listed) * sum(measured.file_bytes.values())


def _hours(job: Job, measured: Measured, frames: float, faces: float, plan_seconds: float) -> dict[str, Any]:
    rates = {f"{stage}_ms_per_frame": 1e3 * s / max(measured.frames, 1) for stage, s in measured.seconds.items()}
    hours = {stage: frames * s / max(measured.frames, 1) / 3600 for stage, s in measured.seconds.items()}
    hours["plan"] = plan_seconds / 3600
    origin = "measured on this machine"
    if measured.infer_seconds is not None:
        rates["infer_ms_per_face"] = 1e3 * measured.infer_seconds / max(measured.faces, 1)
    else:
        rates["infer_ms_per_face"] = 1e3 / _GPU_FACES_PER_S
        origin += ", but infer: " + ("py-feat's figure for an RTX 3090" if job.gpu else "no face was seen")
    infer = faces * rates["infer_ms_per_face"] / 3.6e6
    if not job.gpu:
        hours["infer"] = infer
    return {
        "cpu_hours": round(sum(hours.values()), 6),
        "gpu_hours": round(infer if job.gpu else 0.0, 6),
        "cpu_hours_by_stage": {stage: round(value, 6) for stage, value in hours.items()},
        "rates": {name: round(value, 3) for name, value in rates.items()} | {"origin": origin},
    }


def _cost(hours: dict[str, Any], cpu_price: float | None, gpu_price: float | None) -> dict[str, float] | None:
    if cpu_price is None and gpu_price is None:
        return None
    cpu, gpu = hours["cpu_hours"] * (cpu_price or 0.0), hours["gpu_hours"] * (gpu_price or 0.0)
    return {"cpu": round(cpu, 4), "gpu": round(gpu, 4), "total": round(cpu + gpu, 4)}
