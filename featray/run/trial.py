"""Short stretches of a few videos, put through everything that a run does to them, on this machine.

They go through the run's own decoding, detection, network and publishing, into a folder that is deleted; what they took
is what `forecast.py` reckons with.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from featray.config import Config, cache_dir
from featray.errors import ModelError
from featray.extract.child import ChildSettings
from featray.extract.chunks import Chunk
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask, VideoPlan
from featray.graph.stages import Infer, land_unit_part, landed_faces
from featray.model.outputs import to_columns
from featray.run.runner import Job, infer_settings
from featray.sources.listing import Video
from featray.tables.commits import ShardManifest
from featray.tables.landing import write_plan
from featray.tables.layout import Partition, open_output
from featray.tables.publish import PublishSettings, publish_shard
from featray.video.units import sampled_estimate

_STRETCHES: Final = 4
"""Videos of which a stretch is worked on: some ten seconds each on one CPU thread."""

_STRETCH_FRAMES: Final = 32
"""Sampled frames a stretch at most."""


@dataclass
class Measured:
    """What stretches of a few videos took.

    Attributes:
        seconds: by stage, over all stretches.
        infer_seconds: of the network; None if no face was there, or a CPU stood in for the run's GPU.
        face_share: faces a sampled frame, in the videos' own proportions.
        row_bytes: of the files, by table and row.
        file_bytes: of a file whatever its rows, by table.
        decode_bytes, infer_bytes: peak memory of the processes.
    """

    frames: int = 0
    faces: int = 0
    videos: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    face_share: float = 0.0
    infer_seconds: float | None = None
    row_bytes: dict[str, float] = field(default_factory=dict)
    file_bytes: dict[str, int] = field(default_factory=dict)
    decode_bytes: int = 0
    infer_bytes: int = 0


def measure(job: Job, good: list[tuple[Video, VideoPlan]]) -> Measured:
    """Work on a stretch somewhere in each of a few videos of the sample."""
    measured, chosen = Measured(), random.Random(1)
    picked = chosen.sample(good, min(_STRETCHES, len(good)))
    decode = job.config.decode.model_copy(update={"unit_frames": _STRETCH_FRAMES})
    decoder = IsolatedDecoder(child_settings(job.config.model_copy(update={"decode": decode}), job))
    try:
        with tempfile.TemporaryDirectory(prefix="featray-plan-") as folder:
            stretches = [_decode(decoder, video, chosen, warm_up=not i) for i, (video, _) in enumerate(picked)]
            measured.decode_bytes = _peak_bytes(decoder.process_id) + _peak_bytes(None)
            weights = [frames_promised(plan, job.config) for _, plan in picked]
            shares = [_faces(chunks) / max(_sampled(chunks), 1) for _, chunks in stretches]
            measured.face_share = float(np.average(shares, weights=weights)) if sum(weights) else 0.0
            infer, counts = _open(job)
            _publish(job, infer, stretches, measured, Path(folder))
            measured.infer_bytes = _peak_bytes(None)
            if not counts:
                measured.infer_seconds = None
    finally:
        decoder.close()
    return measured


def _decode(
    decoder: IsolatedDecoder, video: Video, chosen: random.Random, *, warm_up: bool
) -> tuple[UnitTask, list[Chunk]]:
    """A random short unit of a video, decoded and detected on; the first one twice, since it opens the detector."""
    plan = decoder.plan(video)
    task = UnitTask(video, "plan", "plan", chosen.choice(plan.units), 1, 1)
    if warm_up:
        list(decoder.chunks(task))
    chunks = list(decoder.chunks(task))
    return replace(task, unit=replace(task.unit, index=0)), chunks


def _sampled(chunks: list[Chunk]) -> int:
    return chunks[-1].outcome.frames_sampled


def _faces(chunks: list[Chunk]) -> int:
    return sum(len(chunk.chips) for chunk in chunks)


def _open(job: Job) -> tuple[Infer, bool]:
    """The network as a worker opens it, and whether its speed counts: not on a CPU in place of the run's GPU."""
    settings = infer_settings(job)
    try:
        return Infer(settings), True
    except ModelError:
        if not job.gpu:
            raise
        return Infer(replace(settings, gpu=False, engine="auto", precision="fp32")), False


def _publish(
    job: Job, infer: Infer, stretches: list[tuple[UnitTask, list[Chunk]]], measured: Measured, folder: Path
) -> None:
    """Run the network on the stretches' chips and write their tables, as a run would; note times and sizes."""
    partition = Partition(open_output(str(folder / "out"), create=True), job.config.dataset, job.release)
    videos = []
    for task, chunks in stretches:
        measured.videos += 1
        measured.frames += _sampled(chunks)
        measured.faces += _faces(chunks)
        for stage, seconds in chunks[-1].outcome.seconds.items():
            measured.seconds[stage] = measured.seconds.get(stage, 0.0) + seconds
        write_plan(partition.landing(task.video.video_id, task.work_key), VideoPlan(None, (task.unit,)))
        for chunk in chunks:
            began = time.perf_counter()
            columns = to_columns(infer.engine(chunk.chips), _squares(chunk), infer.checkpoint_config)
            if len(chunk.chips):
                measured.infer_seconds = (measured.infer_seconds or 0.0) + time.perf_counter() - began
            faces = landed_faces(chunk.faces, columns)
            outcome = chunk.outcome if chunk.last else None
            land_unit_part(partition, task, job.run_id, chunk.part, faces, chunk.frames, outcome)
        videos.append(_manifest_row(task))
    if videos:
        manifest = ShardManifest("plan", job.run_id, {}, videos)
        publish_shard(partition, manifest, PublishSettings(job.run_id, tuple(job.config.output.tables), ()))
        _weigh(folder / "out", measured)


def _squares(chunk: Chunk) -> np.ndarray[Any, np.dtype[np.float64]]:
    columns = [chunk.faces[name].to_numpy() for name in ("crop_x", "crop_y", "crop_side")]
    return np.column_stack(columns).astype(np.float64)


def _manifest_row(task: UnitTask) -> dict[str, Any]:
    video = asdict(task.video)
    names = ("video_id", "uri", "member", "size_bytes", "content_id")
    return {name: video[name] for name in names} | {
        "work_key": task.work_key,
        "fields": {},
        "extra": None,
        "replaces": None,
    }


def _weigh(out: Path, measured: Measured) -> None:
    """Bytes a row, and bytes a file, of each table."""
    for path in out.rglob("*.parquet"):
        table, metadata = path.relative_to(out).parts[0], pq.read_metadata(path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        data = sum(group.column(i).total_compressed_size for group in groups for i in range(group.num_columns))
        measured.row_bytes[table] = data / max(metadata.num_rows, 1)
        measured.file_bytes[table] = path.stat().st_size - data


def child_settings(config: Config, job: Job) -> ChildSettings:
    """What the run's decoding processes are told."""
    return ChildSettings(
        config.decode, config.detect, config.input.storage_options, cache_dir(), job.settings["detector"]
    )


def frames_promised(plan: VideoPlan, config: Config) -> float:
    """Sampled frames that a video's header promises."""
    return sampled_estimate(plan.header, config.decode.sample) if plan.header else 0.0


def _peak_bytes(process_id: int | None) -> int:
    """The most memory a process has held; None: this one. 0 where the system does not say."""
    try:
        status = Path(f"/proc/{process_id or 'self'}/status").read_text()
    except OSError:
        return 0
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
    return int(kib) * 1024
