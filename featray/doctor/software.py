"""Doctor. Check that the installed software works: packages, decoder, detector, engines, weights."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from featray.doctor.check import Check, State, shortened
from featray.errors import ConfigError, FeatrayError, ModelError

if TYPE_CHECKING:
    from featray.meaning.check import KeptCheck

_FOR_DEVELOPERS: Final = frozenset({"dev", "browser"})
_FOR_RESULTS: Final = {"pandas": "for DataFrames of results", "polars": "for DataFrames of results"}
_DECODED: Final = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "wmv2")
_NEEDED: Final = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4"})


def packages() -> Iterator[Check]:
    """Check each package that featray's metadata requires, then those of its extras."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in metadata.requires("featray") or ()]
    for wanted in requirements:
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            yield _package(wanted, "missing", f"pip install '{wanted.name}{wanted.specifier}'")
    for extra in sorted({*(metadata.metadata("featray").get_all("Provides-Extra") or ())} - _FOR_DEVELOPERS):
        for wanted in requirements:
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                if wanted.marker.evaluate({"extra": extra}):
                    yield _package(wanted, "absent", f"pip install 'featray[{extra}]'")
    named = {wanted.name for wanted in requirements}
    for name, purpose in _FOR_RESULTS.items():
        if name in named:
            continue
        version = _version(name)
        fix = "" if version else f"pip install {name}"
        yield Check("packages", name, "ok" if version else "absent", version or f"not installed; {purpose}", fix)


def _package(wanted: Any, without: Any, fix: str) -> Check:
    version = _version(wanted.name)
    if version is None:
        return Check("packages", wanted.name, without, "not installed", fix)
    if not wanted.specifier.contains(version, prereleases=True):
        return Check("packages", wanted.name, without, f"{version}, but {wanted.specifier} is required", fix)
    return Check("packages", wanted.name, "ok", version)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def decoding() -> Iterator[Check]:
    """Check PyAV's codecs, and decode a bundled clip."""
    import av

    absent = [name for name in _DECODED if not _has_codec(av, name, "r")]
    needed = sorted(_NEEDED.intersection(absent))
    fix = "pip install --force-reinstall --only-binary av av" if needed else ""
    found = ", ".join(name for name in _DECODED if name not in absent)
    yield Check("decoding", "PyAV decodes", "missing" if needed else "ok", f"{found}; FFmpeg {_ffmpeg(av)}", fix)
    encodes = _has_codec(av, "libx264", "w")
    words = "libx264, for previews" if encodes else "no libx264: no clips from `featray preview`"
    fix = "" if encodes else "pip install --force-reinstall --only-binary av av"
    yield Check("decoding", "PyAV encodes", "ok" if encodes else "absent", words, fix)
    yield _nvdec()
    frame = _first_frame()
    yield Check("decoding", "a bundled clip", "ok", f"first frame {frame.width_px}x{frame.height_px}")


def _nvdec() -> Check:
    from featray.video.nvdec import check_nvdec

    name = "PyAV decodes on a GPU"
    try:
        check_nvdec()
    except ConfigError:
        return Check(
            "decoding",
            name,
            "absent",
            "built without NVDEC",
            "only for decode.hwaccel: cuda; install a PyAV built with NVDEC",
        )
    except ModelError:
        fix = "only for decode.hwaccel: cuda; NVIDIA's driver, in containers NVIDIA_DRIVER_CAPABILITIES=compute,video"
        return Check("decoding", name, "absent", "built with NVDEC, but it can open no GPU", fix)
    return Check("decoding", name, "ok", "NVDEC")


def _has_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.codec.Codec(name, mode)
    except ValueError:  # PyAV's UnknownCodecError is one
        return False
    return True


def _ffmpeg(av: Any) -> str:
    return f"libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def _first_frame() -> Any:
    from featray.config import DecodeConfig, InputConfig
    from featray.extract.plan import open_source, plan_video
    from featray.sources.listing import list_videos
    from featray.video.decode import DecodeAccount, decode_pyav

    settings = DecodeConfig()
    (video,) = list_videos(InputConfig(uris=[str(files("featray") / "demo_clips" / "face.mp4")]))
    unit = plan_video(video, settings, {}).units[0]
    with open_source(video, {}) as file:
        return next(iter(decode_pyav(file, unit, settings, DecodeAccount())))


def detecting() -> Iterator[Check]:
    """Run the shipped detector on the bundled clip, which shows one face."""
    from featray.config import DetectConfig
    from featray.faces.detectors import open_detector

    (faces,) = open_detector(DetectConfig())([_first_frame()])
    found = f"retinaface-mnv1 by OpenVINO: found {len(faces)} of 1 face in the bundled clip"
    fix = "" if len(faces) == 1 else "pip install --force-reinstall openvino"
    yield Check("detecting", "the shipped detector", "ok" if len(faces) == 1 else "missing", found, fix)


def engines() -> Iterator[Check]:
    """Let each engine compute a small product, and compare it with the correct result."""
    import numpy as np

    yield _computes("torch on the CPU", "pip install --force-reinstall torch", lambda: _torch_product(np, "cpu"))
    yield _computes("OpenVINO", "pip install --force-reinstall openvino", lambda: _openvino_product(np))
    yield _cuda(np)


def _computes(name: str, fix: str, compute: Any) -> Check:
    try:
        right, words = compute()
    except (ImportError, OSError, RuntimeError) as error:
        return Check("engines", name, "missing", _first_line(error), fix)
    return Check("engines", name, "ok" if right else "missing", words if right else "wrong results", fix * (not right))


def _torch_product(np: Any, device: str) -> tuple[bool, str]:
    import torch

    values = torch.arange(64, dtype=torch.float32).reshape(8, 8)
    product = (values.to(device) @ values.to(device)).cpu().numpy()
    return bool(np.allclose(product, values.numpy() @ values.numpy())), f"{torch.__version__}"


def _openvino_product(np: Any) -> tuple[bool, str]:
    import openvino as ov

    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    given = ov.opset13.parameter([8, 8], np.float32)
    model = ov.Model([ov.opset13.matmul(given, given, False, False)], [given])
    core = ov.Core()
    product = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([values])[0]
    return bool(
        np.allclose(product, values @ values)
    ), f"{ov.__version__.split('-')[0]}; {', '.join(core.available_devices)}"


def _cuda(np: Any) -> Check:
    import torch

    name = "torch on a GPU"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        return Check(
            "engines",
            name,
            "absent",
            f"no usable GPU; {built}",
            "if this machine has a GPU: install its driver, so that `nvidia-smi` lists it",
        )
    try:
        right, _ = _torch_product(np, "cuda")
    except RuntimeError as error:
        return Check(
            "engines", name, "missing", _first_line(error), "a driver as new as torch's CUDA; check `nvidia-smi`"
        )
    found = ", ".join(_described_gpu(torch, i) for i in range(torch.cuda.device_count()))
    return Check("engines", name, "ok" if right else "missing", found if right else "wrong results")


def _described_gpu(torch: Any, i: int) -> str:
    """Return a GPU's name with its free and total memory; other processes' use counts as not free."""
    free, total = torch.cuda.mem_get_info(i)
    return f"{torch.cuda.get_device_name(i)} ({free / 2**30:.0f} of {total / 2**30:.0f} GiB free)"


def weights() -> Iterator[Check]:
    """Check which of the published checkpoints have been pulled."""
    from featray.config import cache_dir
    from featray.meaning.check import read_kept
    from featray.model.known import KNOWN_CHECKPOINTS
    from featray.weights.hub import list_pulled

    try:
        pulled = {record.spec: (record, path) for record, path in list_pulled(cache_dir())}
    except FeatrayError as error:
        yield Check("weights", "cache", "missing", str(error), "delete this folder and pull again")
        return
    for known in KNOWN_CHECKPOINTS:
        if known.spec not in pulled:
            fix = f"featray models pull {known.name} --accept-license {known.license}"
            yield Check("weights", known.name, "absent", f"not pulled; licence {known.license}", fix)
            continue
        record, path = pulled[known.spec]
        yield Check("weights", known.name, "ok", f"sha256 {record.sha256[:12]}, revision {record.revision[:12]}")
        yield _meaning(known.name, read_kept(path, record.sha256))


def _meaning(name: str, kept: KeptCheck | None) -> Check:
    """Return the kept result of `featray models check`. Wrong signs do not stop a run, but make its numbers useless."""
    command = f"featray models check {name}"
    title = f"{name}, meaning of its columns"
    if kept is None:
        return Check("weights", title, "absent", "not checked", command)
    state: State = "ok" if kept.passed else "missing" if kept.opposed else "absent"
    return Check("weights", title, state, f"{kept.summary}; {kept.checked_at[:10]}", "" if kept.passed else command)


def _first_line(error: BaseException) -> str:
    return shortened(str(error)) or type(error).__name__
