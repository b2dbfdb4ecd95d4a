"""The real py-feat compared with featray, from frame and box to final columns. `make parity` runs these tests.

Both load the same synthetic checkpoints. py-feat's face detector is replaced by one that
returns given boxes: its weights can only be downloaded from the hub, and the comparison
starts at boxes. The rest of py-feat is unchanged from its wheel.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from featray.faces.crop import crop_squares, cut_chip
from featray.model.checkpoint import Checkpoint, read_checkpoint
from featray.model.config import CheckpointConfig
from featray.model.engines import open_engine
from featray.model.outputs import to_columns
from featray.model.synth import SYNTHETIC_VARIANTS, write_synthetic
from featray.schema import FACE_TABLES, arrow_schema

# Outside the environment of `make parity`, py-feat is not installed.
if importlib.util.find_spec("feat") is None:
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True)
class Case:
    """A checkpoint to compare on; `engine` is featray's."""

    config: CheckpointConfig
    seed: int
    engine: str


CASES = {
    "v25": Case(SYNTHETIC_VARIANTS["v25"], 11, "openvino"),
    "v28": Case(SYNTHETIC_VARIANTS["v28"], 12, "torch"),
    # Normalised, because py-feat 2.1.5 treats every mesh as normalised.
    "mefl": Case(CheckpointConfig(use_head_v3=True, mesh_normalized=True, n_au=20, n_emotion=7), 13, "torch"),
}


@dataclass(frozen=True)
class Picture:
    """A frame, uint8 `[height, width, 3]` RGB, and boxes in it, `[n, 4]` xyxy px."""

    frame: NDArray[np.uint8]
    boxes: NDArray[np.float32]

    @property
    def squares(self) -> NDArray[np.float64]:
        return crop_squares(self.boxes)

    @property
    def chips(self) -> NDArray[np.uint8]:
        return np.stack([cut_chip(self.frame, square) for square in self.squares])


class GivenBoxes:
    """Replaces py-feat's RetinaFace."""

    boxes: NDArray[np.float32] = np.empty((0, 4), np.float32)
    score = 0.875

    def __call__(self, frames):
        return [[[*box, self.score] for box in self.boxes.tolist()] for _ in frames]


class PyFeat:
    """py-feat's Detectorv2 on one checkpoint, CPU, fp32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import feat.detector_v2 as module

        self.faces = GivenBoxes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "Retinaface", lambda device: self.faces)
            self.detector = module.Detectorv2(
                device="cpu", identity_model=None, multitask_weights=str(checkpoint.path), amp=False
            )

    def detect(self, picture: Picture, *, chips: NDArray[np.uint8] | None = None):
        """Return the Fex of a picture; if chips are given, the network gets them instead of its own."""
        self.faces.boxes = picture.boxes
        frames = torch.from_numpy(picture.frame.copy()).permute(2, 0, 1)[None]
        own = self.detector.multitask
        try:
            if chips is not None:
                vars(self.detector)["multitask"] = _OnChips(own, chips)
            return self.detector.detect(frames, data_type="tensor", progress_bar=False)
        finally:
            vars(self.detector)["multitask"] = own

    def chips(self, picture: Picture) -> NDArray[np.float32]:
        """Return its chips, `[n, 256, 256, 3]`, in grey levels."""
        frames = torch.from_numpy(picture.frame.copy()).permute(2, 0, 1)[None]
        (cropped,) = self.detector.crop_faces_from_boxes(frames, torch.from_numpy(picture.boxes))
        return 255 * cropped["faces"].permute(0, 2, 3, 1).numpy()


class _OnChips:
    """py-feat's network, which always gets the same given chips."""

    def __init__(self, network, chips: NDArray[np.uint8]) -> None:
        self._network, self._chips = network, chips
        self.au_names, self.emotion_names = network.au_names, network.emotion_names

    def __call__(self, chips):
        return self._network(torch.from_numpy(self._chips).permute(0, 3, 1, 2).float() / 255)


class Ours:
    """featray on one checkpoint."""

    def __init__(self, case: Case, checkpoint: Checkpoint) -> None:
        self._config = checkpoint.config
        self._engine = open_engine(checkpoint, engine=case.engine, precision="fp32", batch_size=4)

    def tables(self, picture: Picture) -> dict[str, pa.Table]:
        """Return rows of `faces`, `blendshapes` and `mesh`, in the tables' own schemas."""
        count, squares = len(picture.boxes), picture.squares
        columns = to_columns(self._engine(picture.chips), squares, self._config)
        columns |= dict(zip(("box_x1", "box_y1", "box_x2", "box_y2"), picture.boxes.T, strict=True))
        columns |= dict(zip(("crop_x", "crop_y", "crop_side"), squares.T, strict=True))
        rows = {name: values.tolist() for name, values in columns.items()}
        rows |= {
            "video_id": ["0123456789abcdef"] * count,
            "frame_index": [0] * count,
            "pts_us": [61_500_000] * count,
            "face_index": list(range(count)),
            "track_id": list(range(count)),
            "score": [GivenBoxes.score] * count,
            "run_id": ["run"] * count,
        }
        return {table: _table(arrow_schema(table), rows, count) for table in FACE_TABLES}


def _table(schema: pa.Schema, rows: dict[str, list], count: int) -> pa.Table:
    columns = [pa.array(rows.get(field.name, [None] * count), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[PyFeat, Ours]]:
    """Return a function that gives py-feat and featray on the same checkpoint, by the name of the case."""
    folder = tmp_path_factory.mktemp("parity")
    pairs: dict[str, tuple[PyFeat, Ours]] = {}

    def make(name: str) -> tuple[PyFeat, Ours]:
        if name not in pairs:
            case = CASES[name]
            write_synthetic(folder / f"{name}.safetensors", config=case.config, seed=case.seed)
            checkpoint = read_checkpoint(folder / f"{name}.safetensors")
            pairs[name] = PyFeat(checkpoint), Ours(case, checkpoint)
        return pairs[name]

    return make


@pytest.fixture(scope="session")
def pictures(face_clip: Path) -> dict[str, Picture]:
    """Return frames with faces inside, at the border and beyond it, and pure noise."""
    import av
    import feat
    from PIL import Image

    photo = np.asarray(Image.open(Path(feat.__path__[0]) / "tests" / "data" / "multi_face.jpg").convert("RGB"))
    with av.open(str(face_clip)) as container:
        container.seek(2_000_000)
        still = next(container.decode(video=0)).to_ndarray(format="rgb24")
    noise = np.random.default_rng(5).integers(0, 256, (97, 131, 3), np.uint8)
    boxes = {
        "photo": [[130.2, 40.7, 230.9, 170.1], [-20.5, 500.3, 100.25, 640.0], [500, 100, 512.5, 116.25]],
        "still": [[263.1, 62.4, 373.8, 213.6], [560.0, -30.0, 690.0, 120.0]],
        "noise": [[-40.0, -30.0, 160.0, 120.0], [60.3, 40.1, 60.8, 40.4]],
    }
    frames = {"photo": photo, "still": still, "noise": noise}
    return {name: Picture(frame, np.asarray(boxes[name], np.float32)) for name, frame in frames.items()}
