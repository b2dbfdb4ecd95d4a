"""Ground. The configuration of a run: what may be set, its default, and why that default.

One frozen pydantic tree, parsed once from YAML plus `--set` overrides. Unknown keys and
wrong types are refused with the key's path and what is allowed there. A stage is handed
its own section only. Nothing else in the package reads settings from the environment.

Which settings change results, and so make a new release, is said in `identity.py`.
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
from featray.config_text import MAY_HOLD_SECRETS, describe_problems, read_yaml
from featray.errors import ConfigError, counted

Table = Literal["faces", "blendshapes", "mesh"]
ExecutorSetting = Literal["auto", "ray", "local"]


class InputConfig(Section):
    """Where the videos are."""

    uris: list[str]
    """Files, globs (`*`, `**`, `?`, `[..]`) or prefixes ending in `/`; any fsspec protocol; local paths too."""
    kind: Literal["auto", "videos", "sequences"] = "auto"
    """`sequences` takes pictures: the pictures that lie in one folder, or in one tar, are one video, and its frames are
    they in natural order (`2.png` before `10.png`). `videos` takes videos alone. `auto` takes pictures where there is
    no video: from a URI below which none lies, and from a tar that holds none. Elsewhere they are passed over."""
    sequence_fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Pictures a second, which gives them their times. None: they have none, and then they have to be unrelated."""
    related: bool = True
    """Whether the pictures of a sequence follow each other in time. If not, each is a shot of its own: no track goes
    from one to another, and detect.every has to be 1."""
    path_fields: str | None = None
    """Names for the last parts of the path, such as `{site}/{date}/{name}`; each but `{name}` becomes a partition.
    A path that does not fit has null in all of them."""
    column: str | None = None
    """Of Parquet tables and manifests: the column with the videos' URIs or bytes; None looks for the usual names."""
    storage_options: dict[str, Any] = {}
    """Passed to fsspec for the hosts and buckets of `uris` and `manifest_places`, and for no other that a manifest
    names; a secret here is redacted wherever the config is printed or stored."""
    manifest_places: list[str] = []
    """What a manifest may name besides files beside it, places of its own scheme, and those of the schemes in `uris`:
    `s3://bucket`, `https://host`, `https://` for any host (which gets no storage options), `file:///` for all files
    of this machine, which else only a manifest that is a file of it may name."""

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
    """Where the tables go."""

    uri: Annotated[str, Field(min_length=1)]
    """A folder or a URI; empty, or an output of featray. Several datasets and releases share it."""
    storage_options: dict[str, Any] = {}
    """Passed to fsspec for `output.uri`; secrets are redacted wherever the config is printed or stored."""
    tables: list[Table] = ["faces", "blendshapes", "mesh"]
    """Which feature tables to write; frames, videos, errors and runs are always written."""

    @field_validator("tables")
    @classmethod
    def _faces_always(cls, value: list[Table]) -> list[Table]:
        if "faces" not in value or len(set(value)) != len(value):
            raise ValueError("lists each table once and always holds faces")
        return value


class EveryNth(Section):
    """Sample every n-th frame of the presentation order, counted over the whole video."""

    every: Annotated[int, Field(ge=1)]
    """Take one frame of so many, the first included."""


class FramesPerSecond(Section):
    """Sample by true time: the first frame at or after each tick of 1/fps seconds."""

    fps: Annotated[float, Field(gt=0, le=1000)]
    """Frames a second at most; a video with fewer is taken whole."""


class DecodeConfig(Section):
    """How videos become frames."""

    backend: Literal["pyav", "decord"] = "pyav"
    """decord is an extra, decodes every unit from the start, and refuses what it is known to decode wrongly."""
    sample: Literal["all"] | EveryNth | FramesPerSecond = "all"
    """Which frames are worked on. `{fps: 5}` costs a sixth of a 30 fps video and is often enough."""
    unit_frames: Annotated[int, Field(ge=16, le=100_000)] = 512
    """Sampled frames a unit at most: some 20 s of video, small enough to retry, large enough to amortise a seek."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300
    """A unit decodes in some 10 s; 30 times that is a hang. Waiting for later stages does not count."""
    memory_limit_gib: Annotated[float, Field(ge=0.5)] = 4
    """Of the process that decodes: 8K frames and the detector fit in a quarter of it."""
    max_pixels: Annotated[int, Field(ge=1)] = 33_177_600
    """Frame area limit, checked before decoding: 8K UHD (7680 x 4320)."""
    tone_map: Literal["auto", "off"] = "auto"
    """HDR video (transfer HLG or PQ) is mapped to BT.709 SDR, which detectors and the network have seen; off takes it
    as it is coded, dull and grey. decord cannot, and refuses such video."""
    hwaccel: Literal["none", "cuda"] = "none"
    """cuda has NVIDIA's video decoder reconstruct pictures, where PyAV is built with it and the GPU has one for the
    codec, and each decode worker takes a share of a GPU. Off, since H.264 of 1080p decodes on a CPU core at 50 to 180
    frames/s, every frame is copied back over the bus, and it has not been run on a GPU yet."""
    square_pixels: Literal["auto", "off"] = "auto"
    """Video whose pixels are not square (DV, DVD, broadcasts, anamorphic lenses) is stretched to square ones; boxes and
    meshes are in pixels of that frame. off takes them as they are stored: faces come out narrow or wide."""

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
        """Return what changes the frames, as plain data.

        `tone_map` and `square_pixels` are part of it only if they are off. With `auto` they act on videos that show
        themselves to be HDR, or of other than square pixels, when they are opened; all others are what they were before
        there were these settings, and keep the release they had.
        """
        settings = self.model_dump(mode="json", include={"backend", "sample", "max_pixels"})
        if self.hwaccel != "none":  # decoders differ in what they make of damage; else pictures should be equal
            settings["hwaccel"] = self.hwaccel
        return settings | {name: "off" for name in WHERE_THEY_ACT if getattr(self, name) == "off"}


WHERE_THEY_ACT: Final = ("tone_map", "square_pixels")
"""Settings of decoding that act on some videos only; a run that did not know them took frames as they are stored."""


class DetectConfig(Section):
    """How faces are found.

    What each detector makes of the settings; one that a detector ignores is no part of its release:

    * `retinaface-mnv1`: all of them, on the frame shrunk to 640 px.
    * `retinaface-r34`: all of them, on the whole frame, as py-feat runs it.
    * `retina-face`: ignores `nms_iou`, its package has its own 0.4. `min_score` is the package's `threshold`
      (0.9 there). Frames are shrunk by its rule, to a short side of 1024 and a long side of 1980 px at most, and never
      enlarged (`allow_upscaling=False`); `input_px` shrinks them before that.
    * `boxes`: ignores `input_px` and `nms_iou`; the boxes of a file are what they are.
    """

    detector: Literal["retinaface-mnv1", "retinaface-r34", "retina-face", "boxes"] = "retinaface-mnv1"
    """The first ships with featray, is right on its test clips, and is twenty times faster than the next."""
    boxes: str | None = None
    """For `boxes`: a Parquet or CSV file, local or any fsspec URI; see boxes.py. `input.storage_options` are used if
    they are for its host or bucket, as for the rows of a manifest."""
    weights: str | None = None
    """For `retinaface-r34` and `retina-face`: a local file, instead of what `featray models pull` fetched."""
    revision: str | None = None
    """Of weights on the hub: what they were pulled with as `--revision`; None for main."""
    input_px: Annotated[int, Field(ge=64, le=8192)] | None = None
    """Long side of the detector's input; frames are shrunk to it, never enlarged. None: the detector's own."""
    every: Annotated[int, Field(ge=1, le=30)] = 1
    """Detect on every n-th sampled frame, and between them where faces come, go, move fast or the shot changes;
    elsewhere boxes are interpolated. 1 by default: every box is measured. 5 takes a fifth to a quarter of the
    detections where heads move calmly, and gives boxes within a mean IoU of 0.95 of that. 30 at most: frames are
    held until their boxes are known, and a second is long for a face."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The threshold that py-feat uses."""
    nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Boxes that overlap more than this are one face; RetinaFace's own value."""
    min_size_px: Annotated[int, Field(ge=1)] = 20
    """Shorter box side in the original frame; below 20 px a 256 px chip is mostly interpolation."""
    max_faces: Annotated[int, Field(ge=1, le=1000)] = 32
    """Faces kept a frame, best scores first."""
    device: Literal["cpu", "gpu"] = "cpu"
    """`gpu` runs the detector and cuts chips on the share of a GPU that each decode worker then takes
    (`cluster.decode_gpus`): for `retinaface-mnv1` and `retinaface-r34`. Its boxes differ by rounding, so it is another
    release. `cpu`, since CPU cores that decode are mostly there anyway, and it has not been run on a GPU yet. There is
    no `auto`: a release would hang on where a run happens to start."""

    @model_validator(mode="after")
    def _settings_fit_the_detector(self) -> DetectConfig:
        if self.detector == "boxes" and self.every > 1:
            raise ValueError("every must be 1 with detector boxes: looking them up saves nothing by looking up fewer")
        if self.detector == "boxes" and not self.boxes:
            raise ValueError("detector boxes needs boxes: <a Parquet or CSV file>")
        if self.detector != "boxes" and self.boxes is not None:
            raise ValueError(f"boxes is set, but the detector is {self.detector}; set detector: boxes")
        if self.weights is not None and self.detector not in ("retinaface-r34", "retina-face"):
            raise ValueError(
                f"weights is set, but {self.detector} takes none; it is for retinaface-r34 and retina-face"
            )
        if self.device == "gpu" and self.detector not in ("retinaface-mnv1", "retinaface-r34"):
            raise ValueError(f"device must be cpu with detector {self.detector}: gpu runs the two RetinaFaces alone")
        return self

    @property
    def long_side_px(self) -> int | None:
        """Return what frames are shrunk to before they are detected on; None: nothing."""
        return self.input_px or (640 if self.detector == "retinaface-mnv1" else None)

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the detector's results, as plain data, without files: those have a sha256."""
        ignored = {"retina-face": {"nms_iou"}, "boxes": {"input_px", "nms_iou"}}.get(self.detector, set())
        if self.device == "cpu":  # releases from before there was a choice keep their names
            ignored = ignored | {"device"}
        settings = self.model_dump(mode="json", exclude={"boxes", "weights", "revision"})
        return {key: value for key, value in {**settings, "input_px": self.long_side_px}.items() if key not in ignored}


SignedColumn = Literal["pose_pitch", "pose_roll", "pose_yaw", "gaze_yaw", "gaze_pitch"]
ConventionsName = Literal["py-feat-2.1.2", "py-feat-2.0"]


class NegatedConventions(Section):
    """Conventions with the signs of some columns turned, where `featray models check` found them opposed."""

    of: ConventionsName
    """The conventions to begin with."""
    negate: Annotated[list[SignedColumn], Field(min_length=1)]
    """The columns whose sign is turned."""


class ModelConfig(Section):
    """Which weights, and how they are run."""

    checkpoint: str = "synthetic"
    """`synthetic` (of another published form: `synthetic:v28`, ...); `v2.8`, `v2.7` or `v2.5`, the published ones;
    `hf://owner/repo/file.safetensors`; or a local path. What comes from the hub is kept in `$FEATRAY_CACHE` or
    `~/.cache/featray`."""
    revision: str | None = None
    """Of a checkpoint on the hub: a commit, tag or branch. None: main."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """What the checkpoint's bytes have to be; a run with others ends before it starts."""
    conventions: Literal["auto"] | ConventionsName | NegatedConventions = "auto"
    """Signs of head pose and gaze. `auto` are those of the checkpoint's record, for an unknown file the newest.
    `{of: py-feat-2.1.2, negate: [gaze_yaw]}` turns some; other signs than the newest make another release."""
    recipe: Literal["pyfeat", "card-center-crop"] = "pyfeat"
    """How a chip becomes the network's input: as py-feat does it, or cropped at the centre as the model card says."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """`auto` is torch on a GPU and OpenVINO on a CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` is bf16 on a GPU and fp32 on a CPU; bf16 is faster on a CPU with AMX. It is part of the release."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 256
    """Faces a batch on a GPU at most, of the 256 that a chunk has; engines on a CPU run their own small batches."""
    accept_license: Literal["research-noncommercial"] | None = None
    """The licence of the published weights, which you accept by naming it; without it they are not fetched."""


class ClusterConfig(Section):
    """Workers. `auto` is chosen from the cluster's CPUs and GPUs when the run starts."""

    executor: ExecutorSetting = "auto"
    """`local` works in one process of this machine, `ray` on a Ray cluster or on Ray started here. `auto` is ray on a
    cluster, in a Ray job, with several GPUs, or for more than 1000 videos. Tables are equal. On one machine Ray's start
    (20 s of a clip's 29) is never earned back: over minutes of video on two cores local does 15 frames/s in 1.2 GB,
    ray 11 in 2.8 GB. Runs of thousands of videos take ray all the same: what kills the network's process, native code
    or lack of memory, then costs a worker and not the run."""
    cpus: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Of the cluster when it is fully grown. `auto` is what is there when the run starts, which on a cluster that adds
    nodes as they are asked for is too little: the workers are what asks for them."""
    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """As `cpus`; also decides what `engine` and `precision` mean by `auto`, so that no release hangs on a late node."""
    decode_workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Workers that decode and detect. `auto`: all CPUs that inference leaves."""
    infer_workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Workers that run the network. `auto`: one a GPU; without GPUs a share of the CPUs."""
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """GPUs that an inference worker asks Ray for. `auto`: one where the cluster has GPUs, else none."""
    decode_gpus: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of a GPU that a decode worker asks Ray for, with `detect.device: gpu` or `decode.hwaccel: cuda`. Ten of
    them and one inference worker, which then takes a half, share a GPU: each holds some 0.5 GB of its memory for CUDA
    and up to 0.5 GB for a batch (estimated), so all fit on a card of 16 GB."""
    decode_cpus: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Logical CPUs that a decode worker asks Ray for. `auto`: one, or less where that lets all workers fit."""
    infer_cpus: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """As `decode_cpus`, of an inference worker."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """That each decode and inference worker asks Ray for. None: workers are placed by CPUs and GPUs alone."""
    lost_node_patience_s: Annotated[float, Field(gt=0)] = 600
    """A run whose lost workers find no place, and in which nothing has landed for so long, goes on with fewer. A cloud
    replaces a node within some five minutes; sooner would be to give up nodes that are on their way."""
    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Of the videos that are known by then, at least 20 done: if more fail, the run stops, since something is wrong
    with all of them. Videos that are damaged themselves count only while no video succeeds; 1 lets all fail."""

    @property
    def grows(self) -> bool:
        """Return whether nodes come when workers wait for them: what does not fit yet is then only a warning."""
        return self.cpus != "auto" or self.gpus != "auto"


class RunConfig(Section):
    """Attempts, and what else counts as work."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often a unit is tried whose failure may come from the moment: a crash, a timeout, a failed request."""
    retry_failed: bool = False
    """Whether videos are tried again that an earlier run left failed or only partly read."""
    drop_deleted: bool = False
    """Off, since a source may be gone because it was archived: deleted videos are reported, their rows stay."""


class Config(Section):
    """The whole configuration. Every key has a default but `dataset`, `input.uris` and `output.uri`."""

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
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
                "identify.enabled needs a detector that finds landmarks: embeddings are of aligned faces, and "
                "detect.detector: boxes comes without them"
            )
        return self

    @model_validator(mode="after")
    def _partition_names_are_free(self) -> Config:
        if self.input.path_fields is None:
            return self
        # Here, since it loads pyarrow, which most commands can do without.
        from featray.schema import DERIVED_TABLES, PER_VIDEO_TABLES, PRIVATE_TABLES, TABLES

        # DuckDB ignores case.
        taken = {column.name.casefold() for table in PER_VIDEO_TABLES for column in TABLES[table]}
        derived = {column.name.casefold() for table in DERIVED_TABLES for column in TABLES[table]}
        private = {column.name.casefold() for columns in PRIVATE_TABLES.values() for column in columns}
        private.add("person_id")  # of `persons`, which views join
        for name in path_field_names(self.input.path_fields):
            own = f"input.path_fields: the name {name!r} is featray's own, of a table's column"
            if name.casefold() in taken:
                raise ValueError(own)
            if self.derive.enabled and name.casefold() in derived:
                raise ValueError(f"{own} (tracks or events); choose another, or set derive.enabled: false")
            if self.identify.enabled and name.casefold() in private:
                raise ValueError(f"{own} (embeddings or persons); choose another, or set identify.enabled: false")
        return self

    def redacted(self) -> dict[str, Any]:
        """The config as plain data, with every secret replaced by `***`."""
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
    """The names in a `path_fields` pattern, in order.

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
    """Read the section `derive:` of a YAML config, of which that may be all, and apply overrides to it.

    Raises:
        ConfigError: as `load_config`.
    """
    data = {} if path is None else _read_file(path)
    origin = "config" if path is None else str(path)
    for override in overrides:
        if not override.strip().startswith("derive."):
            raise ConfigError(f"--set {override.partition('=')[0]}: only derive.<key>=<value> counts here")
        _apply_override(data, override)
    try:
        return _Derive.model_validate({"derive": data.get("derive") or {}}).derive
    except ValidationError as error:
        raise _invalid(describe_problems(error, _Derive), origin) from None


class _Derive(Section):
    derive: DeriveConfig


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
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
        ConfigError: with every problem; one is on one line with the origin, several are a line each below it.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise _invalid(describe_problems(error, Config), origin) from None


def _invalid(problems: list[str], origin: str) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(f"{origin}: {problems[0]}")
    return ConfigError("\n  ".join([f"{origin}: {counted(len(problems), 'problem')}", *problems]))


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
            f"--set {shown!r}: the value is not valid YAML; text with braces needs quotes of its own"
        ) from None
    target = data
    for part in parts[:-1]:
        nested = target.setdefault(part, {})
        if not isinstance(nested, dict):
            raise ConfigError(f"--set {shown!r}: {part} is a value, not a section")
        target = nested
    target[parts[-1]] = value


def cache_dir() -> Path:
    """Where checkpoints and compiled engines are kept on a node: `$FEATRAY_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(os.environ.get("FEATRAY_CACHE") or f"{base}/featray").expanduser()
    except RuntimeError:  # a container's user need not have a home
        raise ConfigError("this user has no home folder for the cache; set FEATRAY_CACHE to a folder") from None
