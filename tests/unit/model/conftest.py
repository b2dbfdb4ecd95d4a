"""Synthetic checkpoints, the golden chips, and engines that several tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from featray.model.checkpoint import Checkpoint, read_checkpoint
from featray.model.engines import Engine, open_engine
from featray.model.outputs import RawOutputs
from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic
from tests.fixtures.hub_server import Hub, point_client_to, serving

DATA = Path(__file__).parents[2] / "data"
VARIANTS = tuple(SYNTHETIC_VARIANTS)

Golden = dict[str, NDArray[np.float32]]

HUB_FILE = "lab/faces/small.safetensors"
HUB_SPEC = f"hf://{HUB_FILE}"


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="session")
def checkpoint_of(model_dir: Path) -> Callable[[str], Checkpoint]:
    def make(variant: str) -> Checkpoint:
        path = model_dir / f"{variant}.safetensors"
        if not path.exists():
            write_synthetic(path, config=SYNTHETIC_VARIANTS[variant])
        return read_checkpoint(path)

    return make


@pytest.fixture(scope="session")
def atto(checkpoint_of: Callable[[str], Checkpoint]) -> Checkpoint:
    return checkpoint_of("atto")


@pytest.fixture(scope="session")
def engine_of(checkpoint_of: Callable[[str], Checkpoint], model_dir: Path) -> Callable[..., Engine]:
    """Engines by variant, name and precision; converted networks are shared through one cache."""

    def make(variant: str, engine: str, precision: str = "fp32", batch_size: int = 16) -> Engine:
        return open_engine(
            checkpoint_of(variant),
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            cache_dir=model_dir / "cache",
        )

    return make


@pytest.fixture(scope="session")
def chips() -> NDArray[np.uint8]:
    """The four golden chips, `[4, 256, 256, 3]`."""
    with np.load(DATA / "crop.npz") as file:
        return np.ascontiguousarray(file["chips"].transpose(0, 2, 3, 1))


@pytest.fixture(scope="session")
def many_chips(chips: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Eleven different chips: the golden ones, turned."""
    turned = [chips, chips[:, ::-1], chips[:, :, ::-1]]
    return np.ascontiguousarray(np.concatenate(turned)[:11])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, atto: Checkpoint, tmp_path: Path) -> Iterator[Hub]:
    """A local hub that serves the small checkpoint as `HUB_SPEC`."""
    with serving() as hub:
        hub.files[HUB_FILE] = atto.path.read_bytes()
        point_client_to(hub.url, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def golden(variant: str) -> Golden:
    """What py-feat 2.1.5 gives for the golden chips, under the names of `RawOutputs`."""
    with np.load(DATA / "model" / f"expected_{variant}.npz") as file:
        expected = {name: file[name] for name in ("au", "emotion", "gaze", "pose", "blendshapes")}
        expected["valence_arousal"] = np.stack([file["valence"], file["arousal"]], axis=1)
        expected["mesh"] = file["mesh478"]
    if np.isnan(expected["blendshapes"]).all():
        del expected["blendshapes"]
    return expected


def deviations(raw: RawOutputs, expected: Golden | RawOutputs) -> dict[str, float]:
    """Largest absolute difference of each output."""
    others = expected if isinstance(expected, dict) else vars(expected)
    return {
        name: float(np.abs(getattr(raw, name) - values).max()) for name, values in others.items() if values is not None
    }
