"""Ground. The configuration of a run: every key, its default and the reason for the default.

One frozen pydantic tree, parsed once from YAML plus `--set` overrides. Unknown keys and
wrong types are refused with the key's path and its allowed values. Each stage receives
only its own section. No other module reads settings from the environment.

`identity.py` lists the settings that change results, and therefore the release.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from featray.config_derive import DeriveConfig
from featray.config_identify import IdentifyConfig
from featray.config_section import Section
from featray.config_text import DATASET_NAME, MAY_HOLD_SECRETS, MOST_CHARS, SHA256, describe_problems, read_yaml
from featray.errors import ConfigError, counted

Table = Literal["faces", "blendshapes", "mesh"]
ExecutorSetting = Literal["auto", "ray", "local"]


class InputConfig(Section):
    """The videos, and options for reading them."""

    uris: list[str]
    """Files, globs (`*`, `**`, `?`, `[..]`) or prefixes ending in `/`; local paths or any fsspec protocol."""
    kind: Literal["auto", "videos", "sequences"] = "auto"
    """`sequences` reads pictures: all pictures in one folder or tar form one video, in natural order (`2.png` before
    `10.png`). `videos` reads only videos. `auto` reads pictures where there are no videos, that is, below a URI or in a
    tar without any; elsewhere it skips pictures."""
    sequence_fps: Annotated[float, Field(ge=1e-6, le=1000)] | None = None
    """Pictures per second, from which frame times are computed. None: pictures have no times, which requires
    `related: false`."""
    related: bool = True
    """True if the pictures of a sequence follow each other in time. If false, each picture is its own shot: tracks
    never span two pictures, and detect.every must be 1."""
    path_fields: str | None = None
    """Names for the last parts of the path, such as `{site}/{date}/{name}`; each except `{name}` becomes a partition.
    If a path does not match, all its fields are null."""
    column: str | None = None
    """Column of a Parquet table or manifest that holds the videos' URIs or bytes. None: look for the usual names."""
    storage_options: dict[str, Any] = {}
    """Passed to fsspec for the hosts and buckets in `uris` and `manifest_places`, and never for other places that a
    manifest names. Secrets are redacted wherever the config is printed or stored."""
    manifest_places: list[str] = []
    """Further places that a manifest may name. Files in its own folder, its own scheme and the schemes in `uris` are
    always allowed. Write `s3://bucket`, `https://host`, `https://` for any host (without storage options), or
    `file:///` for all local files, which otherwise only a local manifest may name."""

    @field_validator("uris")
    @classmethod
    def _names_something(cls, value: list[str]) -> list[str]:
        if not value or not all(value):
            raise ValueError("is empty; name at least one file, glob or prefix")
        return value

    @field_validator("manifest_places")
    @classmethod
    def _places_have_schemes(cls, value: list[str]) -> list[str]:
        if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) for place in value):
            raise ValueError("lists places such as s3://bucket or https://host")
        return value

    @field_validator("path_fields")
    @classmethod
    def _fields_are_names(cls, value: str | None) -> str | None:
        if value is None:
            return None
        names = path_field_names(value)
        if not names or len({name.casefold() for name in names}) != len(names):
            raise ValueError("is a pattern of distinct {name} parts, such as '{site}/{date}/{name}'")
        return value

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change frames of sequences, as plain data; empty if none is set."""
        settings = {"sequence_fps": self.sequence_fps, "related": self.related}
        return {"sequences": settings} if settings != {"sequence_fps": None, "related": True} else {}


class OutputConfig(Section):
    """The tables, and options for writing them."""

    uri: Annotated[str, Field(min_length=1)]
    """Folder or URI; it must be empty or hold a featray output. Several datasets and releases can share it."""
    storage_options: dict[str, Any] = {}
    """Passed to fsspec for `output.uri`; secrets are redacted wherever the config is printed or stored."""
    tables: list[Table] = ["faces", "blendshapes", "mesh"]
    """Feature tables to write; frames, videos, errors and runs are always written."""

    @field_validator("tables")
    @classmethod
    def _faces_always(cls, value: list[Table]) -> list[Table]:
        if "faces" not in value or len(set(value)) != len(value):
            raise ValueError("lists each table once and always holds faces")
        return value


class EveryNth(Section):
    """Sample every n-th frame in presentation order, counted over the whole video."""

    every: Annotated[int, Field(ge=1)]
    """Take every n-th frame, starting with the first."""


class FramesPerSecond(Section):
    """Sample by true time: the first frame at or after each tick of 1/fps seconds."""

    fps: Annotated[float, Field(gt=0, le=1000)]
    """Maximum frames per second; a video with a lower rate is taken whole."""


class DecodeConfig(Section):
    """Decoding of videos into frames."""

    backend: Literal["pyav", "decord"] = "pyav"
    """decord is an optional extra. It decodes every unit from the start of the video, and refuses formats that it is
    known to decode wrongly."""
    sample: Literal["all"] | EveryNth | FramesPerSecond = "all"
    """Frames to process. `{fps: 5}` costs a sixth of a 30 fps video and is often enough."""
    unit_frames: Annotated[int, Field(ge=16, le=100_000)] = 512
    """Maximum sampled frames per unit: about 20 s of video, small enough to retry, large enough to amortise a seek."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300
    """Time limit for one unit. A unit decodes in about 10 s; 30 times that is a hang. Waiting for later stages does not
    count."""
    memory_limit_gib: Annotated[float, Field(ge=0.5)] = 4
    """Memory limit of the decoding process; 8K frames and the detector fit in a quarter of it."""
    max_pixels: Annotated[int, Field(ge=1)] = 33_177_600
    """Frame area limit, checked before decoding: 8K UHD (7680 x 4320)."""
    tone_map: Literal["auto", "off"] = "auto"
    """`auto` maps HDR video (transfer HLG or PQ) to BT.709 SDR, on which detectors and the network were trained. `off`
    keeps the coded values, which look dull and grey. decord cannot map HDR video and refuses it."""
    hwaccel: Literal["none", "cuda"] = "none"
    """`cuda` decodes with NVIDIA's video decoder if PyAV is built with it and the GPU supports the codec; each decode
    worker then takes a share of a GPU. Default `none`: a CPU core decodes 1080p H.264 at 50 to 180 frames/s, every
    frame decoded by the GPU is copied back over the bus, and `cuda` has not been run on a GPU yet."""
    square_pixels: Literal["auto", "off"] = "auto"
    """`auto` stretches video with non-square pixels (DV, DVD, broadcasts, anamorphic lenses) to square pixels; boxes
    and meshes are in pixels of the stretched frame. `off` keeps pixels as stored: faces look narrow or wide."""

    @model_validator(mode="after")
    def _gpu_decodes_with_pyav(self) -> DecodeConfig:
        if self.hwaccel != "none" and self.backend != "pyav":
            raise ValueError("hwaccel must be none with backend decord, which decodes on CPUs")
        return self

    @field_validator("tone_map", "square_pixels", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML 1.1 reads `off` as false."""
        return "off" if value is False else value

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the frames, as plain data.

        `tone_map` and `square_pixels` are included only if they are off. With `auto` they affect only HDR videos and
        videos with non-square pixels, which are recognised when they are opened; the results of all other videos are
        the same as before these settings existed, and so is their release.
        """
        settings = self.model_dump(mode="json", include={"backend", "sample", "max_pixels"})
        if self.hwaccel != "none":  # decoders treat damaged data differently; otherwise pictures should be equal
            settings["hwaccel"] = self.hwaccel
        return settings | {name: "off" for name in WHERE_THEY_ACT if getattr(self, name) == "off"}


WHERE_THEY_ACT: Final = ("tone_map", "square_pixels")
"""Decoding settings that affect only some videos. Runs from before these settings took frames as stored."""


class DetectConfig(Section):
    """Face detection.

    Settings that a detector ignores are not part of its release. Each detector uses:

    * `retinaface-mnv1`: all of them, on the frame shrunk to 640 px.
    * `retinaface-r34`: all of them, on the whole frame, as py-feat runs it.
    * `retina-face`: all except `nms_iou`; the package has its own value, 0.4. `min_score` is passed as the package's
      `threshold` (its own default is 0.9). The package shrinks frames to a short side of at most 1024 px and a long
      side of at most 1980 px, and never enlarges them (`allow_upscaling=False`); `input_px` shrinks them before that.
    * `boxes`: all except `input_px` and `nms_iou`; boxes are taken from the file unchanged.
    """

    detector: Literal["retinaface-mnv1", "retinaface-r34", "retina-face", "boxes"] = "retinaface-mnv1"
    """The default ships with featray, is correct on its test clips, and is twenty times faster than the next."""
    boxes: str | None = None
    """For `boxes`: a Parquet or CSV file, a local path or any fsspec URI; see boxes.py. `input.storage_options` are
    used only if they are meant for its host or bucket, as for the rows of a manifest."""
    weights: str | None = None
    """For `retinaface-r34` and `retina-face`: a local file to use instead of the one that `featray models pull`
    fetched."""
    revision: str | None = None
    """Hub revision of the weights, as passed to `featray models pull --revision`. None: main."""
    input_px: Annotated[int, Field(ge=64, le=8192)] | None = None
    """Long side of the detector's input; frames are shrunk to it, never enlarged. None: the detector's own value."""
    every: Annotated[int, Field(ge=1, le=30)] = 1
    """Detect on every n-th sampled frame, and on frames between them where faces appear, disappear or move fast or the
    shot changes; the other boxes are interpolated. Default 1: every box is measured. With calm heads, 5 needs a fifth
    to a quarter of the detections, and its boxes have a mean IoU of 0.95 and above with those of 1. Maximum 30: frames
    are held until their boxes are known, and faces change a lot within a second."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The threshold that py-feat uses."""
    nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Boxes that overlap more than this are one face; RetinaFace's own value."""
    min_size_px: Annotated[int, Field(ge=1)] = 20
    """Shorter box side in the original frame; below 20 px a 256 px chip is mostly interpolation."""
    max_faces: Annotated[int, Field(ge=1, le=1000)] = 32
    """Faces kept per frame, best scores first."""
    device: Literal["cpu", "gpu"] = "cpu"
    """`gpu` runs the detector and cuts chips on a GPU, of which each decode worker takes a share
    (`cluster.decode_gpus`); only for `retinaface-mnv1` and `retinaface-r34`. Its boxes differ by rounding, so it makes
    another release. Default `cpu`: CPU cores for decoding are usually present anyway, and `gpu` has not been run on a
    GPU yet. There is no `auto`, since the release would then depend on the machine that starts the run."""

    @model_validator(mode="after")
    def _settings_fit_the_detector(self) -> DetectConfig:
        if self.detector == "boxes" and self.every > 1:
            raise ValueError("every must be 1 with detector boxes: looking up fewer boxes saves nothing")
        if self.detector == "boxes" and not self.boxes:
            raise ValueError("detector boxes needs boxes: <a Parquet or CSV file>")
        if self.detector != "boxes" and self.boxes is not None:
            raise ValueError(f"boxes is set, but the detector is {self.detector}; set detector: boxes, or remove boxes")
        if self.weights is not None and self.detector not in ("retinaface-r34", "retina-face"):
            raise ValueError(
                f"weights is set, but {self.detector} takes none; remove it (it is for retinaface-r34 and retina-face)"
            )
        if self.device == "gpu" and self.detector not in ("retinaface-mnv1", "retinaface-r34"):
            raise ValueError(f"device must be cpu with detector {self.detector}: only the two RetinaFaces run on a GPU")
        return self

    @property
    def long_side_px(self) -> int | None:
        """Return the long side, in pixels, to which frames are shrunk before detection; None if they are not shrunk."""
        return self.input_px or (640 if self.detector == "retinaface-mnv1" else None)

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the detector's results, as plain data; files are identified by sha256."""
        ignored = {"retina-face": {"nms_iou"}, "boxes": {"input_px", "nms_iou"}}.get(self.detector, set())
        if self.device == "cpu":  # keeps the names of releases from before this key existed
            ignored = ignored | {"device"}
        settings = self.model_dump(mode="json", exclude={"boxes", "weights", "revision"})
        return {key: value for key, value in {**settings, "input_px": self.long_side_px}.items() if key not in ignored}


SignedColumn = Literal["pose_pitch", "pose_roll", "pose_yaw", "gaze_yaw", "gaze_pitch"]
ConventionsName = Literal["py-feat-2.1.2", "py-feat-2.0"]


class NegatedConventions(Section):
    """Conventions with some signs flipped, for columns that `featray models check` found to be inverted."""

    of: ConventionsName
    """The conventions to start from."""
    negate: Annotated[list[SignedColumn], Field(min_length=1)]
    """The columns whose sign is flipped."""


class ModelConfig(Section):
    """The network's weights, and how they are run."""

    checkpoint: str = "synthetic"
    """`synthetic` (`synthetic:v28` and so on for the architecture of another published checkpoint); one of the
    published checkpoints `v2.8`, `v2.7` and `v2.5`; `hf://owner/repo/file.safetensors`; or a local path. Files from the
    hub are cached in `$FEATRAY_CACHE` or `~/.cache/featray`."""
    revision: str | None = None
    """Commit, tag or branch of a checkpoint on the hub. None: main."""
    sha256: Annotated[str, Field(pattern=SHA256)] | None = None
    """Required sha256 of the checkpoint file; if it differs, the run does not start."""
    conventions: Literal["auto"] | ConventionsName | NegatedConventions = "auto"
    """Signs of head pose and gaze. `auto` takes those recorded for the checkpoint, and the newest for an unknown file.
    `{of: py-feat-2.1.2, negate: [gaze_yaw]}` flips some. Signs other than the newest make another release."""
    recipe: Literal["pyfeat", "card-center-crop"] = "pyfeat"
    """How a chip becomes the network's input: as in py-feat, or centre-cropped as the model card says."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """`auto` is torch on a GPU and OpenVINO on a CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` is bf16 on a GPU and fp32 on a CPU; bf16 is faster on a CPU with AMX. It is part of the release."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 256
    """Maximum faces per batch on a GPU, out of the 256 in a chunk; CPU engines use small batches of their own."""
    accept_license: Literal["research-noncommercial"] | None = None
    """Name the licence of the published weights to accept it; without it they are not fetched."""


class ClusterConfig(Section):
    """Workers. `auto` values are chosen from the cluster's CPUs and GPUs when the run starts."""

    executor: ExecutorSetting = "auto"
    """`local` runs in one process on this machine, `ray` on a Ray cluster or on Ray started on this machine. `auto` is
    ray on a cluster, in a Ray job, with several GPUs, or for more than 1000 videos. The tables are equal. On one
    machine Ray never makes up for its start-up time (20 s of a clip's 29): over minutes of video on two cores, local
    does 15 frames/s in 1.2 GB and ray 11 in 2.8 GB. Runs of thousands of videos still use ray: if native code or lack
    of memory kills the network's process, the run loses one worker and continues."""
    cpus: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """CPUs of the fully grown cluster. `auto` counts the CPUs present when the run starts. That is too few on a cluster
    that adds nodes on demand: it adds them only once workers ask for them."""
    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """As `cpus`. Also resolves `auto` of `engine` and `precision`, so that the release does not depend on which nodes
    have joined."""
    decode_workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Workers that decode and detect. `auto`: all CPUs that inference leaves."""
    infer_workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Workers that run the network. `auto`: one per GPU; without GPUs a share of the CPUs."""
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """GPUs that an inference worker requests from Ray. `auto`: one if the cluster has GPUs, else none."""
    decode_gpus: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of a GPU that a decode worker requests from Ray, with `detect.device: gpu` or `decode.hwaccel: cuda`. Ten
    decode workers share a GPU with one inference worker, which then takes half of it. Each holds about 0.5 GB of GPU
    memory for CUDA and up to 0.5 GB for a batch (estimated), so all fit on a 16 GB card."""
    decode_cpus: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Logical CPUs that a decode worker requests from Ray. `auto`: one, or less if needed to fit all workers."""
    infer_cpus: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """As `decode_cpus`, for an inference worker."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory that each decode and inference worker requests from Ray. None: workers are placed by CPUs and GPUs
    only."""
    lost_node_patience_s: Annotated[float, Field(gt=0)] = 600
    """If lost workers cannot be placed and nothing has landed for this long, the run continues with fewer workers. A
    cloud replaces a node within about five minutes; a shorter time would give up on nodes that are still starting."""
    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Stop the run if a larger share of the videos known so far has failed, once at least 20 are done: the cause is
    then likely common to all. Damaged videos count only while no video has succeeded. 1 never stops a run."""

    @property
    def grows(self) -> bool:
        """Return whether the cluster adds nodes on demand; workers that do not fit yet are then only a warning."""
        return self.cpus != "auto" or self.gpus != "auto"


class RunConfig(Section):
    """Attempts, retries and deleted videos."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Attempts per unit if its failure may be temporary: a crash, a timeout, a failed request."""
    retry_failed: bool = False
    """Retry videos that an earlier run left failed or only partly read."""
    drop_deleted: bool = False
    """Remove the rows of videos that are gone from a folder, glob or prefix of `input.uris`. Off by default, since the
    source may have been archived: deleted videos are reported and their rows stay. What a manifest no longer names, or
    names although it is gone, always stays; `featray erase` removes it."""


class Config(Section):
    """The whole configuration. Every key except `dataset`, `input.uris` and `output.uri` has a default."""

    dataset: Annotated[str, Field(pattern=DATASET_NAME)]
    """Name of the partition; letters, digits, `.`, `_` and `-`."""
    input: InputConfig
    output: OutputConfig
    decode: DecodeConfig = DecodeConfig()
    detect: DetectConfig = DetectConfig()
    model: ModelConfig = ModelConfig()
    cluster: ClusterConfig = ClusterConfig()
    run: RunConfig = RunConfig()
    derive: DeriveConfig = DeriveConfig()
    identify: IdentifyConfig = IdentifyConfig()

    @property
    def decodes_on_gpu(self) -> bool:
        """Return whether decode workers need a GPU."""
        return self.detect.device == "gpu" or self.decode.hwaccel != "none"

    @model_validator(mode="after")
    def _pictures_can_be_worked_on(self) -> Config:
        if not self.input.related and self.detect.every > 1:
            raise ValueError(
                "detect.every must be 1 with input.related false: unrelated pictures have nothing between them"
            )
        if self.input.kind == "sequences" and self.decode.backend != "pyav":
            raise ValueError("decode.backend must be pyav with input.kind sequences: decord reads no pictures")
        return self

    @model_validator(mode="after")
    def _faces_can_be_aligned(self) -> Config:
        if self.identify.enabled and self.detect.detector == "boxes":
            raise ValueError(
                "identify.enabled needs a detector that finds landmarks, to align faces; detect.detector: boxes has "
                "none, choose another detector"
            )
        return self

    @model_validator(mode="after")
    def _partition_names_are_free(self) -> Config:
        if self.input.path_fields is None:
            return self
        # Imported late because it loads pyarrow, which most commands do not need.
        from featray.schema import DERIVED_TABLES, PER_VIDEO_TABLES, PRIVATE_TABLES, TABLES

        # DuckDB ignores case.
        taken = {column.name.casefold() for table in PER_VIDEO_TABLES for column in TABLES[table]}
        derived = {column.name.casefold() for table in DERIVED_TABLES for column in TABLES[table]}
        private = {column.name.casefold() for columns in PRIVATE_TABLES.values() for column in columns}
        private.add("person_id")  # of `persons`, which views join
        for name in path_field_names(self.input.path_fields):
            own = f"input.path_fields: {name!r} is already a column of featray's tables"
            if name.casefold() in taken:
                raise ValueError(f"{own}; choose another name")
            if self.derive.enabled and name.casefold() in derived:
                raise ValueError(f"{own} (tracks or events); choose another, or set derive.enabled: false")
            if self.identify.enabled and name.casefold() in private:
                raise ValueError(f"{own} (embeddings or persons); choose another, or set identify.enabled: false")
        return self

    def redacted(self) -> dict[str, Any]:
        """Return the config as plain data, with every secret replaced by `***`."""
        from featray.redaction import redact_options, redact_uri

        data = self.model_dump(mode="json")
        for key in ("uris", "manifest_places"):
            data["input"][key] = [redact_uri(uri) for uri in data["input"][key]]
        data["output"]["uri"] = redact_uri(data["output"]["uri"])
        if self.detect.boxes is not None:
            data["detect"]["boxes"] = redact_uri(self.detect.boxes)
        for side in ("input", "output"):
            data[side]["storage_options"] = redact_options(data[side]["storage_options"])
        return data


def path_field_names(pattern: str) -> list[str]:
    """Return the names in a `path_fields` pattern, in order.

    >>> path_field_names("{site}/{date}/{name}")
    ['site', 'date', 'name']
    """
    return re.findall(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", pattern)


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read a YAML config and apply `a.b=value` overrides (values are YAML).

    Raises:
        ConfigError: the file is missing or malformed, or keys or values are not allowed.
    """
    return build_config(_read_file(path), overrides, origin=str(path))


def load_derive(path: Path | None, overrides: tuple[str, ...] = ()) -> DeriveConfig:
    """Read the section `derive:` of a YAML config and apply overrides to it. Other sections may be missing.

    Raises:
        ConfigError: as `load_config`.
    """
    data = {} if path is None else _read_file(path)
    origin = "config" if path is None else str(path)
    for override in overrides:
        if not override.strip().startswith("derive."):
            raise ConfigError(f"--set {override.partition('=')[0]}: this command takes only derive.<key>=<value>")
        _apply_override(data, override)
    try:
        return _Derive.model_validate({"derive": data.get("derive") or {}}).derive
    except ValidationError as error:
        raise _invalid(describe_problems(error, _Derive), origin) from None


class _Derive(Section):
    derive: DeriveConfig


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARS + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(text) > MOST_CHARS:
        raise ConfigError(f"{path}: is not a config: it has more than {MOST_CHARS:,} characters")
    try:
        data = read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: is not a mapping of settings; see configs/demo.yaml for an example")
    return data


def build_config(data: dict[str, Any], overrides: tuple[str, ...], *, origin: str) -> Config:
    """Apply `a.b=value` overrides to plain data, in place, and validate it.

    Raises:
        ConfigError: an override is malformed, or keys or values are not allowed.
    """
    for override in overrides:
        _apply_override(data, override)
    return parse_config(data, origin=origin)


def parse_config(data: dict[str, Any], *, origin: str = "config") -> Config:
    """Validate plain data.

    Raises:
        ConfigError: lists every problem; a single one follows the origin on its line, several have a line each.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise _invalid(describe_problems(error, Config), origin) from None


def _invalid(problems: list[str], origin: str) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(f"{origin}: {problems[0]}")
    total = "many problems" if problems[-1].startswith("and ") else counted(len(problems), "problem")
    return ConfigError("\n  ".join([f"{origin}: {total}", *problems]))


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    parts = key.split(".")
    shown = f"{key}=***" if key.startswith(MAY_HOLD_SECRETS) else override
    if not equals or not all(parts):
        raise ConfigError(f"--set {shown!r}: write it as section.key=value")
    try:
        value = read_yaml(text)
    except ConfigError:
        raise ConfigError(
            f"--set {shown!r}: the value is not valid YAML; text with braces needs quotes of its own, such as "
            "--set 'input.path_fields=\"{site}/{name}\"'"
        ) from None
    if isinstance(value, dict) and any(":" in str(name) and got is None for name, got in value.items()):
        raise ConfigError(f"--set {shown!r}: YAML needs a space after the colon, as in {{fps: 5}}")
    target = data
    for part in parts[:-1]:
        nested = target.setdefault(part, {})
        if not isinstance(nested, dict):
            raise ConfigError(f"--set {shown!r}: {part} is a value, not a section")
        target = nested
    target[parts[-1]] = value


def cache_dir() -> Path:
    """Return the node's cache for checkpoints and compiled engines: `$FEATRAY_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(os.environ.get("FEATRAY_CACHE") or f"{base}/featray").expanduser()
    except RuntimeError:  # a container's user may have no home
        raise ConfigError("this user has no home folder for the cache; set FEATRAY_CACHE to a folder") from None
