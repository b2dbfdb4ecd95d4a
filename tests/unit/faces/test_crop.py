import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featray.config import DetectConfig
from featray.faces.crop import crop_squares, cut_chip, share_in_frame, sharpness
from featray.faces.detectors import open_cutter
from featray.names import CHIP_PX
from tests.fixtures.plugin import DATA


@pytest.fixture(scope="module")
def golden():
    return np.load(DATA / "crop.npz")


@pytest.mark.parity
def test_squares_are_those_of_py_feat(golden):
    assert np.abs(crop_squares(golden["boxes"]) - golden["crop_affine"]).max() < 1e-4


@pytest.mark.parity
def test_chips_are_those_of_py_feat(golden):
    """Squares inside the frame, over its border, far outside it, and enlarged."""
    for square, chip in zip(crop_squares(golden["boxes"]), golden["chips"], strict=True):
        difference = np.abs(cut_chip(golden["frame"], square).astype(int) - chip.transpose(1, 2, 0))
        assert difference.max() <= 1
        assert difference.mean() < 0.1


@pytest.mark.parametrize("square", [(-5000.0, -3000.0, 400.0), (90.0, 40.0, 2000.0), (0.0, 0.0, 1.0)])
def test_chips_match_torch_grid_sample_however_far_outside(square):
    torch = pytest.importorskip("torch")
    frame = np.random.default_rng(0).integers(0, 256, (83, 131, 3), np.uint8)
    x, y, side = square
    steps = (np.arange(CHIP_PX) + 0.5) / CHIP_PX * side
    grid_x, grid_y = np.meshgrid(2 * (x + steps + 0.5) / 131 - 1, 2 * (y + steps + 0.5) / 83 - 1)
    grid = torch.from_numpy(np.stack([grid_x, grid_y], -1)[None])
    image = torch.from_numpy(frame.astype(np.float64).transpose(2, 0, 1)[None])
    expected = torch.nn.functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    chip = cut_chip(frame, np.asarray(square))
    assert np.abs(chip - expected[0].numpy().transpose(1, 2, 0)).max() < 0.502


def test_the_square_is_never_smaller_than_a_pixel():
    assert crop_squares(np.zeros((1, 4)))[0, 2] == 1.0


def test_share_in_frame():
    assert share_in_frame(np.asarray([10.0, 10.0, 20.0]), 100, 100) == 1.0
    assert share_in_frame(np.asarray([-10.0, 10.0, 20.0]), 100, 100) == 0.5
    assert share_in_frame(np.asarray([-50.0, 10.0, 20.0]), 100, 100) == 0.0


def test_sharpness_falls_with_blur():
    noise = np.random.default_rng(0).integers(0, 256, (CHIP_PX, CHIP_PX, 3), np.uint8)
    blurred = (noise.astype(float) + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 3
    assert sharpness(blurred.astype(np.uint8)) < sharpness(noise) / 2
    assert sharpness(np.full((CHIP_PX, CHIP_PX, 3), 7, np.uint8)) == pytest.approx(0, abs=1e-6)


def test_sharpness_is_the_same_on_another_cpu():
    """OpenBLAS has kernels for CPUs, and is told here to take another one's, which rounds in another order."""
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU cannot run the kernels of another one that round differently")
    code = (
        "import numpy as np; from featray.faces.crop import sharpness\n"
        "chips = np.random.default_rng(0).integers(0, 256, (16, 256, 256, 3), np.uint8)\n"
        "print([sharpness(chip) for chip in chips])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"OPENBLAS_CORETYPE": core}, capture_output=True, check=True
        ).stdout
        for core in ("Haswell", "SkylakeX")
    }
    assert len(told) == 1


def test_what_cuts_on_a_cpu_is_what_cuts_there_by_default():
    frame, square = np.random.default_rng(0).integers(0, 256, (83, 131, 3), np.uint8), np.asarray((3.3, 4.7, 60.1))
    np.testing.assert_array_equal(cut_chip(frame, square, open_cutter(DetectConfig())), cut_chip(frame, square))
