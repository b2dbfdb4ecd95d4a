"""Faces. Find and fetch the weights of embedders that do not ship with featray, in the same way as those of detectors.

Invariant: only `pull_embedder` uses the network, and it fetches nothing whose licence was not accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from featray.config_identify import IdentifyConfig
from featray.errors import LicenseError, ModelError, one_line
from featray.faces.detector import DetectorFile
from featray.weights.cache import sha256_of_file
from featray.weights.hub import DEFAULT_LICENSE, HubFile, fetch, open_pulled


@dataclass(frozen=True)
class EmbedderWeights:
    """An embedder's published weights.

    Attributes:
        hub_file: file on the hub; its commit and sha256 are recorded at the first pull.
        size_mb: size of the file, computed from its tensors.
        license: licence of the weights.
        rests_on: reason for that licence, a phrase.
    """

    hub_file: HubFile
    description: str
    size_mb: int
    license: str
    rests_on: str


EMBEDDER_WEIGHTS: Final[dict[str, EmbedderWeights]] = {
    "arcface-r50": EmbedderWeights(
        HubFile("py-feat/arcface_r50", "arcface_r50.safetensors", "main", "arcface-r50", "identify.weights"),
        "py-feat's face embedder (ArcFace, ResNet-50)",
        size_mb=174,
        license=DEFAULT_LICENSE,
        rests_on="InsightFace's models and their training data, WebFace600K, are licensed for non-commercial research",
    )
}


def find_embedder(settings: IdentifyConfig, cache_dir: Path) -> DetectorFile:
    """Return the local weights of the configured embedder; never uses the network.

    Raises:
        LicenseError: their licence is not accepted.
        WeightsMissing: they were neither pulled nor set in `identify.weights`.
        ModelError: `identify.weights` is not a file or belongs to another network, or the pulled file is damaged.
    """
    known = EMBEDDER_WEIGHTS[settings.embedder]
    check_license(settings.embedder, settings.accept_license)
    if settings.weights is None:
        found, commit = open_pulled(_at(known.hub_file, settings.revision), cache_dir, partial(_described, known))
        return replace(found, revision=commit)
    path = Path(settings.weights).expanduser()
    if not path.is_file():
        raise ModelError(f"identify.weights: {settings.weights}: no such file")
    _check_tensors(path)
    return _described(known, path)


def pull_embedder(
    embedder: str, *, revision: str | None, sha256: str | None, accept_license: str | None, cache_dir: Path
) -> DetectorFile:
    """Fetch an embedder's weights, check them and record their identity; does nothing if they are already present.

    Args:
        embedder: a name in EMBEDDER_WEIGHTS.
        revision: branch, tag or commit on the hub; None for main. Runs use the one in `identify.revision`.
        sha256: expected hex digest of the file, or None.
        accept_license: the licence that the user has accepted, or None.
        cache_dir: folder to store them in.

    Raises:
        LicenseError: `accept_license` is not their licence.
        WeightsMissing: the hub cannot be reached.
        ModelError: the file does not have the expected digest or tensors.
    """
    known = EMBEDDER_WEIGHTS[embedder]
    check_license(embedder, accept_license)

    def read(path: Path) -> DetectorFile:
        _check_tensors(path)
        return _described(known, path)

    found, commit = fetch(_at(known.hub_file, revision), cache_dir, read, sha256=sha256)
    return replace(found, revision=commit)


def check_license(embedder: str, accept_license: str | None) -> None:
    """Raise unless the licence of an embedder's weights is accepted.

    Raises:
        LicenseError: the licence is not accepted.
    """
    known = EMBEDDER_WEIGHTS[embedder]
    if accept_license != known.license:
        raise LicenseError(
            f"{known.hub_file.spec}: these weights are for research, non-commercial use only: {known.rests_on}; if "
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


def _described(known: EmbedderWeights, path: Path) -> DetectorFile:
    try:
        return DetectorFile(path, sha256_of_file(path), known.license)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); pull it again") from error


def _at(hub_file: HubFile, revision: str | None) -> HubFile:
    return hub_file if revision is None else replace(hub_file, revision=revision)
