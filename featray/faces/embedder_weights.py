"""Faces. The weights of embedders that do not ship with featray, and the licence that has to be accepted for them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from featray.config_identify import IdentifyConfig
from featray.errors import LicenseError, ModelError, one_line
from featray.faces.detector import KnownFile
from featray.faces.weights import FaceWeights, find_file, pull_file
from featray.weights.hub import DEFAULT_LICENSE, HubFile

_RESTS_ON: Final = "InsightFace's models and their training data, WebFace600K, are licensed for non-commercial research"


def find_embedder(settings: IdentifyConfig, cache_dir: Path) -> KnownFile:
    """Return the local weights of the configured embedder; never uses the network.

    Raises:
        LicenseError: their licence is not accepted.
        WeightsMissing: they were neither pulled nor set in `identify.weights`.
        ModelError: `identify.weights` is not a file or belongs to another network, or the pulled file is damaged.
    """
    known = EMBEDDER_WEIGHTS[settings.embedder]
    _check_license(known, settings.accept_license)
    return find_file(known, settings.weights, settings.revision, cache_dir)


def pull_embedder(
    embedder: str, *, revision: str | None, sha256: str | None, accept_license: str | None, cache_dir: Path
) -> KnownFile:
    """Download the weights of an embedder in EMBEDDER_WEIGHTS, as `pull_file` does, if their licence is accepted.

    Raises:
        LicenseError: `accept_license` is not their licence; nothing was fetched.
        FeatrayError: as `pull_file` does.
    """
    known = EMBEDDER_WEIGHTS[embedder]
    _check_license(known, accept_license)
    return pull_file(known, revision=revision, sha256=sha256, cache_dir=cache_dir)


def _check_license(known: FaceWeights, accept_license: str | None) -> None:
    if accept_license != known.license:
        raise LicenseError(
            f"{known.hub_file.spec}: these weights are for research, non-commercial use only: {_RESTS_ON}; if "
            f"that is your use, set identify.accept_license: {known.license} "
            f"(with `featray models pull`: --accept-license {known.license})",
            license=known.license,
        )


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in the published file of `arcface-r50`."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})

    def conv(name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)})

    conv("conv1", 3, 64)
    shapes["prelu.weight"] = (64,)
    inputs = 64
    for stage, (blocks, outputs) in enumerate(((3, 64), (4, 128), (14, 256), (3, 512)), start=1):
        for i in range(blocks):
            name = f"layer{stage}.{i}"
            norm(f"{name}.bn1", inputs)
            conv(f"{name}.conv1", inputs, outputs)
            shapes[f"{name}.prelu.weight"] = (outputs,)
            conv(f"{name}.conv2", outputs, outputs)
            if i == 0:
                conv(f"{name}.downsample", inputs, outputs, 1)
            inputs = outputs
    norm("bn2", 512)
    shapes |= {"fc.weight": (512, 512 * 7 * 7), "fc.bias": (512,)}
    norm("features", 512)
    return shapes


def _check_tensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({one_line(error, 80)})") from error
    expected = tensor_shapes()
    found = {name: shape for name, shape in found.items() if not name.endswith("num_batches_tracked")}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shown = ["missing" if one is None else str(list(one)) for one in (found.get(name), expected.get(name))]
            raise ModelError(f"{path}: not the weights of ArcFace-R50: {name!r} is {shown[0]}, not {shown[1]}")


EMBEDDER_WEIGHTS: Final[dict[str, FaceWeights]] = {
    "arcface-r50": FaceWeights(
        HubFile("py-feat/arcface_r50", "arcface_r50.safetensors", "main", "arcface-r50", "identify.weights"),
        "py-feat's face embedder (ArcFace, ResNet-50)",
        size_mb=174,
        license=DEFAULT_LICENSE,
        check=_check_tensors,
    )
}
"""Weights of embedders, by the embedder's name, which is also their name for `featray models pull`."""
