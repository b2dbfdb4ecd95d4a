"""Run. What a run will come to, before it starts: videos, frames, faces, hours, bytes, money. `featray plan`.

Lists the input as a run does, leaves out what is published, plans a random sample of the videos, and puts short
stretches of a few of them through the run's own decoding, detection, inference and publishing, on this machine, into
a folder that is deleted. Starts no Ray, and writes nothing to the output. Totals follow from the sample's shares of
the listed bytes; with one that holds few of many videos, they are as rough as those are different.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from featray.config import Config
from featray.errors import OutputError
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoPlan
from featray.graph.machine import local_gpus
from featray.identity import work_keys
from featray.redaction import redact_uri
from featray.run.job import Job, describe
from featray.run.shards import SHARD_BYTES, SHARD_VIDEOS
from featray.run.trial import Measured, frames_promised, measure
from featray.sources.listing import Video, list_videos
from featray.sources.passed import PassedOver
from featray.tables.done import Done, read_done
from featray.tables.layout import Partition, open_output

_GPU_FACES_PER_S: Final = 202.0
"""Of py-feat's own figures the lowest: an RTX 3090, batch 16, one face a frame, bf16. Used where no GPU is here."""


@dataclass
class Listed:
    """What the input holds, and a random sample of what is to be done."""

    videos: int = 0
    bytes: int = 0
    published: int = 0
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
    """Predict a run of this config; the keys of the answer stay.

    Args:
        config: of the run.
        sample: how many videos' headers are read.
        cpu_hour_price: of one CPU thread, in whatever currency; None: not priced.
        gpu_hour_price: of one GPU, in the same.

    Raises:
        FeatrayError: what would end the run before it starts: nothing to list, weights that are not here, ...
    """
    asked = config.cluster.gpus_per_worker
    job = describe(config, local_gpus() or (0.0 if asked == "auto" else asked))  # the cluster may have what is not here
    listed = _list(config, job, sample)
    plans, plan_seconds = _probe(job, listed.sample)
    good = [(video, plan) for video, plan in zip(listed.sample, plans, strict=True) if not plan.failure]
    measured = measure(job, good)
    scale = _scale(listed)
    frames = scale * sum(frames_promised(plan, config) for _, plan in good)
    faces = frames * measured.face_share
    hours = _hours(job, measured, frames, faces, scale * plan_seconds)
    return {
        "release": job.release,
        "videos": listed.videos,
        "already_published": listed.published,
        "input_bytes": listed.bytes,
        "passed_over": dict(listed.passed.files),
        "units": round(scale * sum(len(plan.units) for plan in plans)),
        "frames": round(frames),
        "faces": round(faces),
        "unreadable_videos": round(scale * (len(plans) - len(good))),
        **hours,
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
    }


def _list(config: Config, job: Job, sample: int) -> Listed:
    """Count the listing; the sample is drawn evenly from what is not published (reservoir), always the same way."""
    listed, chosen = Listed(), random.Random(0)
    key, done = work_keys(job.settings), _done(config, job)
    for video in list_videos(config.input, listed.passed):
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


def _done(config: Config, job: Job) -> Done | None:
    try:
        output = open_output(config.output.uri, config.output.storage_options)
    except OutputError:
        return None  # nothing is there yet
    return read_done(Partition(output, config.dataset, job.release))


def _probe(job: Job, videos: Sequence[Video]) -> tuple[list[VideoPlan], float]:
    """The plans of the sample and the seconds that took."""
    decoder = IsolatedDecoder(job.child_settings())
    try:
        if videos:
            decoder.plan(videos[0])  # the first one also starts the process
        began = time.perf_counter()
        return [decoder.plan(video) for video in videos], time.perf_counter() - began
    finally:
        decoder.close()


def _scale(listed: Listed) -> float:
    """From the sample to all: by bytes if they are known, since long videos are large ones."""
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


def as_lines(found: dict[str, Any], config: Config) -> Iterator[str]:
    """The forecast for people."""
    where = redact_uri(config.output.uri)
    yield f"into     {where}, release {found['release']}"
    yield f"videos   {found['videos']:,} to do, {found['input_bytes'] / 1e6:,.1f} MB"
    if found["already_published"]:
        yield f"         {found['already_published']:,} more are published already"
    if said := PassedOver(Counter(found["passed_over"])).in_words():
        yield f"         {said}"
    if found["unreadable_videos"]:
        yield f"         about {found['unreadable_videos']:,} of them cannot be read"
    yield f"work     about {found['units']:,} units, {found['frames']:,} frames, {found['faces']:,} faces"
    stages = ", ".join(f"{stage} {hours:.3g}" for stage, hours in found["cpu_hours_by_stage"].items())
    yield f"hours    {found['cpu_hours']:,.3g} of one CPU thread ({stages}), {found['gpu_hours']:,.3g} of one GPU"
    memory = found["memory_gib"]
    yield f"memory   {memory['decode_worker']} GiB a decode worker, {memory['infer_worker']} GiB an inference worker"
    yield f"output   about {found['output_bytes'] / 1e6:,.1f} MB"
    if found["cost"]:
        cost = found["cost"]
        yield f"cost     {cost['total']:,.2f} (CPU {cost['cpu']:,.2f}, GPU {cost['gpu']:,.2f})"
    sample = found["sample"]
    yield (
        f"from     headers of {sample['videos']} videos and {sample['frames']} frames of {sample['stretches']}; "
        f"rates {found['rates']['origin']}"
    )
