"""Run. Resolve a config before the run starts: weights, engine, release, and the settings of its workers."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from featray.config import Config, cache_dir
from featray.errors import ConfigError, StorageError
from featray.extract.child import ChildSettings
from featray.faces.detector import DetectorFiles
from featray.faces.detectors import detector_sha256
from featray.faces.embedder import embedder_of
from featray.findings.derive import Derivation
from featray.graph.stages import InferSettings, StageSettings
from featray.graph.workers import expects_gpu
from featray.identity import release_name, result_settings
from featray.model.checkpoint import Checkpoint
from featray.model.conventions import Conventions, configured_conventions
from featray.model.engines import choose
from featray.model.gpu import has_stand_in
from featray.model.known import full_spec, recognise
from featray.model.source import resolve_checkpoint
from featray.run.session import available_gpus
from featray.sources.places import hint, options_for
from featray.tables.lease import HeldPartition
from featray.tables.merge import Embedded
from featray.tables.provenance import WeightsFacts, run_row
from featray.video.decoders import open_decoder
from featray.video.nvdec import make_hwaccel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Facts of a run that are known before it starts: weights, engine, release.

    `unusable` lists columns that the checkpoint is known not to estimate.
    """

    config: Config
    run_id: str
    checkpoint: Checkpoint
    conventions: Conventions
    unusable: tuple[str, ...]
    engine: str
    precision: str
    settings: dict[str, Any]
    release: str
    gpu: bool
    derive: Derivation | None = None

    @property
    def embedded(self) -> Embedded | None:
        """Return which embeddings the run publishes."""
        return Embedded.of(self.config.identify)

    def child_settings(self) -> ChildSettings:
        """Return the settings of the run's decoding processes."""
        return ChildSettings.of(self.config, self.settings["detector"])

    def stage_settings(self, partition: HeldPartition) -> StageSettings:
        """Return the settings of the run's stages."""
        infer = InferSettings.of(
            self.config.model,
            weights_sha256=self.checkpoint.sha256,
            engine=self.engine,
            precision=self.precision,
            gpu=self.gpu,
            conventions=self.conventions,
            identify=self.config.identify if self.config.identify.enabled else None,
        )
        return StageSettings(partition, self.run_id, self.child_settings(), infer, self.config.run.max_attempts)

    def row(self) -> dict[str, Any]:
        """Return the run's row of `runs`, with the values known before the start."""
        weights = WeightsFacts(
            model_name=self.checkpoint.name,
            model_file=full_spec(self.config.model.checkpoint),
            weights_sha256=self.checkpoint.sha256,
            hub_revision=self.checkpoint.revision,
            license=self.checkpoint.license,
            weights_trained=self.checkpoint.weights_trained,
            conventions=self.conventions.text,
            unusable=",".join(self.unusable),
        )
        return run_row(
            self.config,
            run_id=self.run_id,
            release=self.release,
            weights=weights,
            engine=self.engine,
            precision=self.precision,
            settings=self.settings,
        )


def describe(config: Config, gpus: float | None = None) -> Job:
    """Resolve weights, engine and precision, and the name of the release.

    Args:
        config: the run's configuration.
        gpus: number of GPUs that the run will have; None: ask the cluster if there is one, else this machine.
    """
    derive = Derivation(config.derive) if config.derive.enabled else None  # raises for invalid expressions
    open_decoder(config.decode.backend)  # raises once if it is not installed, instead of once per video
    if gpus is None:
        gpus = available_gpus(config.cluster)
        _refuse_decoding_without_gpu(config, gpus)
    gpu = expects_gpu(gpus, config.cluster)
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
    recognised = recognise(checkpoint, config.model.checkpoint)
    conventions = configured_conventions(config.model) or recognised.conventions
    if recognised.known is None and checkpoint.weights_trained and config.model.conventions == "auto":
        log.warning("%s: %s; run `featray models check` to see whether they are right", checkpoint.path, recognised.how)
    settings = result_settings(
        config,
        weights_sha256=checkpoint.sha256,
        detector_sha256=_detector_sha256(config),
        precision=precision,
        conventions=conventions.setting,
        embedder_sha256=embedder_of(config.identify),
    )
    return Job(
        config=config,
        run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        checkpoint=checkpoint,
        conventions=conventions,
        unusable=tuple(recognised.unusable),
        engine=engine,
        precision=precision,
        settings=settings,
        release=release_name(checkpoint.name, settings),
        gpu=gpu,
        derive=derive,
    )


def _refuse_decoding_without_gpu(config: Config, gpus: float) -> None:
    """Raise ConfigError if decode workers need a GPU, but there is none and none will be added."""
    there = gpus if config.cluster.gpus == "auto" else config.cluster.gpus
    if config.decode.hwaccel != "none":
        make_hwaccel()
    if not config.decodes_on_gpu or there or has_stand_in():
        return
    setting = "detect.device: gpu" if config.detect.device == "gpu" else "decode.hwaccel: cuda"
    fix = "detect.device: cpu" if config.detect.device == "gpu" else "decode.hwaccel: none"
    raise ConfigError(
        f"{setting}, but no GPU was found: this machine has no driver device (/dev/nvidia0, /dev/dxg), or the cluster "
        f"has none; see `featray doctor`, set {fix}, or set cluster.gpus to the GPUs of the fully grown cluster"
    )


def detector_files(config: Config) -> DetectorFiles:
    """Return where a detector finds its weights or boxes on this machine, and the options for the boxes' storage."""
    return DetectorFiles(cache_dir(), options_for(config.detect.boxes, config.input))


def _detector_sha256(config: Config) -> str:
    try:
        return detector_sha256(config.detect, detector_files(config))
    except StorageError as error:
        boxes = config.detect.boxes
        why = hint(boxes, config.input) if boxes else ""
        raise type(error)(f"{error}{why}") from None
