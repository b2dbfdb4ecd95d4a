"""Graph. The stages, from planning to landing: each adapts one-row Arrow batches to the functions that do the work.

Both executors run them: Ray Data in actors, `LocalSession` in threads. This module does not use Ray.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config import ModelConfig, cache_dir
from featray.config_identify import IdentifyConfig
from featray.errors import RETRYABLE, ErrorCode, ModelError, one_line
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import Outcome, UnitTask, VideoPlan, VideoTask
from featray.faces.detectors import detector_sha256, prepare_detector
from featray.graph import metrics
from featray.graph.rows import (
    ALREADY_LANDED,
    RECEIPT_SCHEMA,
    Receipt,
    chips_of,
    chunk_row,
    feature_row,
    landed_row,
    read_stream,
)
from featray.model.conventions import NEWEST, Conventions
from featray.names import CHIP_PX
from featray.records import dump, load
from featray.sources.listing import Video
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition
from featray.tables.ledger import land_unit_part, landed_faces, units_to_do

_log = logging.getLogger(__name__)

Starting = Callable[[str], AbstractContextManager[object]]
"""Context manager around a worker's start, given its display name; `ray_internals.watch_start` is one."""


@dataclass(frozen=True)
class InferSettings:
    """Settings with which an inference worker opens the network.

    Attributes:
        spec: `model.checkpoint` of the config; each node resolves it once into its own cache.
        weights_sha256: sha256 of the checkpoint that the run was planned with; another file is refused.
        threads: CPU threads of the engine.
        conventions: signs of the checkpoint that the run was planned with.
        identify: which faces also get embeddings; None for none.
    """

    spec: str
    revision: str | None
    weights_sha256: str
    accept_license: str | None
    engine: str
    precision: str
    recipe: str
    batch_size: int
    threads: int
    gpu: bool
    cache_dir: Path
    conventions: Conventions = NEWEST
    identify: IdentifyConfig | None = None

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        *,
        weights_sha256: str,
        engine: str,
        precision: str,
        gpu: bool,
        conventions: Conventions,
        identify: IdentifyConfig | None = None,
    ) -> InferSettings:
        """Return the settings of a run's inference workers, with one thread each."""
        return cls(
            spec=config.checkpoint,
            revision=config.revision,
            weights_sha256=weights_sha256,
            accept_license=config.accept_license,
            engine=engine,
            precision=precision,
            recipe=config.recipe,
            batch_size=config.batch_size,
            threads=1,
            gpu=gpu,
            cache_dir=cache_dir(),
            conventions=conventions,
            identify=identify,
        )


@dataclass(frozen=True)
class StageSettings:
    """Settings of all stages of a run, under either executor.

    Attributes:
        partition: the partition in which parts land and shards are published.
        run_id: id of the run.
        child: settings of the processes that plan and decode.
        infer: settings of inference workers.
        max_attempts: number of attempts after which even a temporary failure is final.
    """

    partition: HeldPartition
    run_id: str
    child: ChildSettings
    infer: InferSettings
    max_attempts: int


class PlanVideos:
    """VideoTask rows in, UnitTask rows out: probe, cut into units, land the plan, skip what the ledger has."""

    def __init__(self, partition: Partition, decoder: IsolatedDecoder, starting: Starting = nullcontext) -> None:
        with starting("a planning worker"):
            self._partition, self._decoder = partition, decoder

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield one table per video, with one row per unit."""
        for text in batch["task"].to_pylist():
            units = units_to_do(self._partition, load(VideoTask, text), self._plan)
            yield pa.table({"task": [dump(unit).decode() for unit in units]})

    def _plan(self, video: Video) -> VideoPlan:
        start = time.perf_counter()
        plan = self._decoder.plan(video)
        metrics.record(metrics.STAGE_SECONDS, time.perf_counter() - start, stage="plan")
        metrics.record(metrics.BYTES_READ, plan.bytes_read, stage="plan")
        return plan


def _raise_model_error(message: str) -> None:
    raise ModelError(message)


class DecodeDetect:
    """UnitTask rows in, chunk rows out. Frames never leave the child process that decodes them.

    Args:
        decoder: the decoder whose child does the work.
        starting: context manager around the start.
        give_up: called with a message if the GPU is lost; raises an error if nothing restarts the worker.

    Raises:
        FeatrayError: at the start, if the detector's files are missing on this node or differ from the run's, or the
            required GPU is missing.
    """

    def __init__(
        self,
        decoder: IsolatedDecoder,
        starting: Starting = nullcontext,
        give_up: Callable[[str], None] = _raise_model_error,
    ) -> None:
        self._give_up = give_up
        with starting("a decode worker"):
            child = decoder.settings
            if child.detector_sha256 not in (None, detector_sha256(child.detect, child.detector_files)):
                raise ModelError(
                    f"{child.detect.detector}: its files differ from those this run was planned with; "
                    "sync them to every node"
                )
            prepare_detector(child.detect, child.detector_files)
            decoder.open()
            self._decoder = decoder

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield one row per chunk."""
        for text in batch["task"].to_pylist():
            task = load(UnitTask, text)
            if task.landed_parts:
                yield landed_row(text)
                continue
            try:
                for chunk in self._decoder.chunks(task):
                    if chunk.last:
                        metrics.record_outcome(chunk.outcome)
                    yield chunk_row(text, chunk)
            except ModelError as error:
                self._give_up(f"{platform.node()}: {error}")


class Infer:
    """Chunk rows in, feature rows out. Holds the network; batches are formed inside a chunk.

    Args:
        settings: settings of the engine.
        starting: context manager around the start.
        give_up: called with a message if the engine fails for good; raises an error if nothing restarts the worker.
    """

    def __init__(
        self,
        settings: InferSettings,
        starting: Starting = nullcontext,
        give_up: Callable[[str], None] = _raise_model_error,
    ) -> None:
        with starting("an inference worker"):
            self._start(settings)
        self._settings, self._give_up = settings, give_up
        self._waiting_since = time.perf_counter()

    def _start(self, settings: InferSettings) -> None:
        from featray.model.checkpoint import Checkpoint
        from featray.model.engines import open_engine
        from featray.model.source import is_on_hub, resolve_checkpoint

        checkpoint: Checkpoint = resolve_checkpoint(
            settings.spec,
            revision=settings.revision,
            sha256=settings.weights_sha256 if is_on_hub(settings.spec) else None,
            accept_license=settings.accept_license,
            cache_dir=settings.cache_dir,
        )
        if checkpoint.sha256 != settings.weights_sha256:
            raise ModelError(f"{checkpoint.path}: not the weights this run was planned with; sync them to every node")
        self.checkpoint_config = checkpoint.config
        self.engine = open_engine(
            checkpoint,
            engine=settings.engine,
            precision=settings.precision,
            recipe=settings.recipe,
            batch_size=settings.batch_size,
            num_threads=settings.threads,
            gpu=settings.gpu,
            cache_dir=settings.cache_dir,
        )
        if settings.gpu:
            self._try_gpu()
        self._embed = None
        if settings.identify is not None:  # otherwise its code is not even imported
            from featray.graph.embedding import EmbedFaces

            self._embed = EmbedFaces(settings.identify)

    def _try_gpu(self) -> None:
        try:
            self.engine(np.zeros((1, CHIP_PX, CHIP_PX, 3), np.uint8))
        except RuntimeError as error:
            raise ModelError(f"the GPU of {platform.node()} cannot run the network: {one_line(error)}") from error

    def stop(self) -> None:
        """End another thread's call after its current batches; that call raises `EngineStopped`."""
        self.engine.stop()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the same rows without `chips` and with complete `faces`."""
        for i in range(batch.num_rows):
            row = batch.slice(i, 1)
            if row["part"][0].as_py() == ALREADY_LANDED:
                yield feature_row(row, None, 0.0)
            else:
                yield self._features(row)

    def _features(self, row: pa.Table) -> pa.Table:
        start = time.perf_counter()
        faces = read_stream(row["faces"][0].as_buffer())
        try:
            chips = chips_of(row)
            landed = landed_faces(faces, self.columns(faces, chips))
            if self._embed is not None:
                frames = read_stream(row["frames"][0].as_buffer())
                landed = self._embed(landed, frames, chips, faces["chip"].to_numpy())
        except (ModelError, RuntimeError, MemoryError) as error:  # of torch and OpenVINO as well
            problem = f"{type(error).__name__}: {one_line(error)}"
            _log.warning("the network failed on %d faces: %s", faces.num_rows, problem)
            if not self.engine.is_usable():
                self._give_up(f"{platform.node()}: the network's engine is no longer usable: {problem}")
            return feature_row(row, None, 0.0, problem)
        end = time.perf_counter()
        metrics.record_inference(
            len(chips),
            self._settings.batch_size,
            end - start,
            end - self._waiting_since,
            "gpu" if self._settings.gpu else "cpu",
        )
        self._waiting_since = end
        return feature_row(row, landed, end - start)

    def columns(self, faces: pa.Table, chips: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return the network's columns, one row per face of DETECTED_SCHEMA, from the chips of their chunk."""
        from featray.model.outputs import to_columns

        chip_of = faces["chip"].to_numpy()
        _, of_chip = np.unique(chip_of, return_index=True)  # the first face of each chip
        squares = np.column_stack([faces[name].to_numpy()[of_chip] for name in ("crop_x", "crop_y", "crop_side")])
        columns = to_columns(
            self.engine(chips), squares.astype(np.float64), self.checkpoint_config, self._settings.conventions
        )
        return columns if len(chips) == len(chip_of) else {name: of[chip_of] for name, of in columns.items()}


class LandParts:
    """Feature rows in, receipts out: each part is written to the ledger before it is counted."""

    def __init__(self, partition: Partition, run_id: str, max_attempts: int, starting: Starting = nullcontext) -> None:
        with starting("a landing worker"):
            self._partition, self._run_id, self._max_attempts = partition, run_id, max_attempts

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return one receipt per part."""
        receipts = [_land(row, self._partition, self._run_id, self._max_attempts) for row in batch.to_pylist()]
        return pa.Table.from_pylist([asdict(receipt) for receipt in receipts], schema=RECEIPT_SCHEMA)


def _land(row: dict[str, Any], partition: Partition, run_id: str, max_attempts: int) -> Receipt:
    task = load(UnitTask, row["task"])
    receipt = Receipt(task.shard, task.video.video_id, task.unit.index, task.units, task.attempt)
    if row["part"] == ALREADY_LANDED:
        return replace(receipt, part=task.landed_parts - 1, last=True, resumed=True)
    if row["problem"]:
        return replace(
            receipt, part=row["part"], retry=True, error_code=ErrorCode.INFERENCE_FAILED, problem=row["problem"]
        )
    outcome = load(Outcome, row["outcome"])
    faces, frames = read_stream(row["faces"]), read_stream(row["frames"])
    receipt = replace(
        receipt,
        part=row["part"],
        last=row["last"],
        frames=frames.num_rows,
        faces=faces.num_rows,
        seconds=json.dumps({"infer": row["infer_seconds"], **(outcome.seconds if row["last"] else {})}),
    )
    if row["last"]:
        receipt = replace(receipt, failed=outcome.failed)
        if (failure := outcome.told_failure) is not None:
            receipt = replace(receipt, error_code=failure.code, problem=failure.message)
            if task.attempt < max_attempts and failure.code in RETRYABLE:
                return replace(receipt, retry=True)
    land_unit_part(partition, task, run_id, row["part"], faces, frames, outcome if row["last"] else None)
    return receipt
