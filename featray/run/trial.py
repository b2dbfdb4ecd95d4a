"""Run. Run short stretches of a few videos through all steps of a run on this machine, and measure them.

They run in a session of their own, in this process, into a temporary folder. `forecast.py` extrapolates from the
measured times and sizes.
"""

from __future__ import annotations

import json
import random
import resource
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from featray.config import Config
from featray.errors import ModelError
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import VideoPlan, VideoTask
from featray.graph.machine import local_gpus
from featray.graph.rows import Receipt
from featray.graph.stages import StageSettings
from featray.identity import work_keys
from featray.run.job import Job
from featray.run.local_session import LocalSession
from featray.run.shards import cut_shards
from featray.sources.listing import Video
from featray.store.scratch import scratch_folder
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.publish import PublishSettings
from featray.video.units import sampled_estimate

_STRETCHES: Final = 4
"""Videos from which a stretch is processed, about ten seconds each on one CPU thread."""

_STRETCH_FRAMES: Final = 32
"""Maximum sampled frames per stretch."""


@dataclass
class Measured:
    """Measured costs of stretches of a few videos.

    Attributes:
        seconds: seconds by stage except inference, over all stretches.
        infer_seconds: seconds of the network; None if no face was found, or a CPU stood in for the run's GPU.
        cpu_infer_seconds: seconds of the network on the CPU that stood in.
        face_share: faces per sampled frame, weighted by the videos' lengths.
        row_bytes: bytes per row, by table.
        file_bytes: bytes of a file independent of its rows, by table.
        decode_bytes, infer_bytes: peak memory of the processes; 0 if unknown.
    """

    frames: int = 0
    faces: int = 0
    videos: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    face_share: float = 0.0
    infer_seconds: float | None = None
    cpu_infer_seconds: float | None = None
    row_bytes: dict[str, float] = field(default_factory=dict)
    file_bytes: dict[str, int] = field(default_factory=dict)
    decode_bytes: int = 0
    infer_bytes: int = 0


def measure(job: Job, good: Sequence[tuple[Video, VideoPlan]]) -> Measured:
    """Process a random stretch of each of a few videos of the sample.

    Args:
        job: the run to forecast.
        good: readable videos with their plans.
    """
    chosen = random.Random(1)
    picked = chosen.sample(good, min(_STRETCHES, len(good)))
    decode = job.config.decode.model_copy(update={"unit_frames": _STRETCH_FRAMES})
    with scratch_folder("plan") as folder:
        out = Path(folder, "out")
        partition = Partition(open_output(str(out), create=True), job.config.dataset, job.release)
        stages = job.stage_settings(UnheldPartition(partition))
        child = stages.child if local_gpus() else stages.child.without_gpu()  # measures CPU time instead
        stages = replace(
            stages, child=replace(child, decode=decode.model_copy(update={"hwaccel": child.decode.hwaccel}))
        )
        tasks = _stretches(job, stages, [video for video, _ in picked], chosen)
        measured = _work(job, stages, tasks, {v.video_id: frames_promised(plan, job.config) for v, plan in picked})
        _weigh(out, measured)
    return measured


def _stretches(job: Job, stages: StageSettings, videos: list[Video], chosen: random.Random) -> list[VideoTask]:
    """Land a plan with one random short unit for each video, and return the tasks."""
    key, tasks = work_keys(job.settings), []
    decoder = IsolatedDecoder(stages.child)
    try:
        for video in videos:
            plan = decoder.plan(video)
            task = VideoTask(video, key(video.content_id), shard="", resume=True)
            unit = replace(chosen.choice(plan.units), index=0)
            write_plan(stages.partition.landing(video.video_id, task.work_key), replace(plan, units=(unit,)))
            tasks.append(task)
    finally:
        decoder.close()
    return tasks


def _work(job: Job, stages: StageSettings, tasks: list[VideoTask], promised: dict[str, float]) -> Measured:
    """Run the stretches through all stages, on one thread each, and publish them."""
    measured, stands_in = Measured(videos=len(tasks)), False
    for manifest, of_shard in cut_shards(tasks, job.run_id):
        try:
            receipts = _stream(job, stages, of_shard, measured)
        except ModelError:
            if not job.gpu:
                raise
            stands_in = True  # its speed does not count, only rows and bytes do
            infer = replace(stages.infer, gpu=False, engine="auto", precision="fp32")
            receipts = _stream(job, replace(stages, infer=infer), of_shard, measured)
        _count(receipts, promised, measured)
        with LocalSession(job.config.cluster, stages) as session:
            session.publish(manifest, PublishSettings(job.run_id, tuple(job.config.output.tables), ()))
            session.published(wait=True)
    if stands_in:
        measured.cpu_infer_seconds = measured.infer_seconds
    if stands_in or not measured.faces:
        measured.infer_seconds = None
    measured.infer_bytes = _peak_bytes()
    return measured


def _stream(job: Job, stages: StageSettings, tasks: list[VideoTask], measured: Measured) -> list[Receipt]:
    cluster = job.config.cluster.model_copy(update={"decode_workers": 1, "infer_workers": 1})
    with LocalSession(cluster, stages) as session:
        receipts = list(session.stream(iter([tasks]), lambda rest: rest))
    measured.decode_bytes = max(measured.decode_bytes, session.decode_bytes)
    return receipts


def _count(receipts: list[Receipt], promised: dict[str, float], measured: Measured) -> None:
    frames: dict[str, int] = defaultdict(int)
    faces: dict[str, int] = defaultdict(int)
    for receipt in receipts:
        frames[receipt.video_id] += receipt.frames
        faces[receipt.video_id] += receipt.faces
        for stage, seconds in json.loads(receipt.seconds).items():
            if stage == "infer":
                measured.infer_seconds = (measured.infer_seconds or 0.0) + seconds
            else:
                measured.seconds[stage] = measured.seconds.get(stage, 0.0) + seconds
    measured.frames += sum(frames.values())
    measured.faces += sum(faces.values())
    weights = [promised[video_id] for video_id in frames]
    shares = [faces[video_id] / max(frames[video_id], 1) for video_id in frames]
    measured.face_share = float(np.average(shares, weights=weights)) if sum(weights) else 0.0


def _weigh(out: Path, measured: Measured) -> None:
    """Measure the bytes per row and per file of each table."""
    for path in out.rglob("*.parquet"):
        table, metadata = path.relative_to(out).parts[0], pq.read_metadata(path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        data = sum(group.column(i).total_compressed_size for group in groups for i in range(group.num_columns))
        measured.row_bytes[table] = data / max(metadata.num_rows, 1)
        measured.file_bytes[table] = path.stat().st_size - data


def frames_promised(plan: VideoPlan, config: Config) -> float:
    """Return the number of sampled frames expected from a video's header."""
    return sampled_estimate(plan.header, config.decode.sample) if plan.header else 0.0


def _peak_bytes() -> int:
    """Return the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
