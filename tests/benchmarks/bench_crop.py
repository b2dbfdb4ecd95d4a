"""Milliseconds to cut the chips of one 1080p frame, compared with torch's grid_sample over the whole frame.

All start from the same RGB frame, uint8, and give the same chips. `py-feat` does what its
`extract_face_square_pad_torch` does: the frame is converted to floats in [0, 1], copied once a
face, and sampled in one call. `grid_sample` omits the copies. They take turns in one
process on one thread, timed by the CPU time of the process. Prints a table; asserts nothing.

    make bench
    .venv/bin/python tests/benchmarks/bench_crop.py --rounds 31
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

from featray.faces.crop import crop_squares, cut_chip
from featray.names import CHIP_PX

WIDTH_PX, HEIGHT_PX = 1920, 1080

Run = Callable[[], object]


def cut_by_torch(frame: NDArray[np.uint8], squares: NDArray[np.float64], *, copies: bool) -> NDArray[np.uint8]:
    """Return chips, uint8 `[n, 256, 256, 3]`, by grid_sample over the whole frame."""
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255.0
    x, y, side = torch.from_numpy(squares).float()[:, :, None].unbind(1)
    steps = (torch.arange(CHIP_PX).float() + 0.5) / CHIP_PX * side
    across = (2 * (x + steps + 0.5) / frame.shape[1] - 1)[:, None, :].expand(-1, CHIP_PX, -1)
    down = (2 * (y + steps + 0.5) / frame.shape[0] - 1)[:, :, None].expand(-1, -1, CHIP_PX)
    images = image[torch.zeros(len(squares), dtype=torch.long)] if copies else image.expand(len(squares), -1, -1, -1)
    grid = torch.stack([across, down], -1)
    chips = torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return (255 * chips).round_().byte().permute(0, 2, 3, 1).contiguous().numpy()


def cut_by_us(frame: NDArray[np.uint8], squares: NDArray[np.float64]) -> list[NDArray[np.uint8]]:
    return [cut_chip(frame, square) for square in squares]


def boxes(count: int) -> NDArray[np.float64]:
    """Return the box of a portrait, or boxes of a group; the last two extend beyond the frame, one of them far."""
    rng = np.random.default_rng(count)
    side = rng.uniform(250, 350, (1, 1)) if count == 1 else rng.uniform(80, 240, (count, 1))
    corner = rng.uniform([0, 0], [WIDTH_PX - 400, HEIGHT_PX - 400], (count, 2))
    found = np.concatenate([corner, corner + side * [0.8, 1.0]], axis=1)
    if count > 2:
        found[-2:] += [[-corner[-2, 0] - 60, 0] * 2, [WIDTH_PX, HEIGHT_PX] * 2]
    return found


def median_ms(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: 1e3 * statistics.median(turns[1:]) for name, turns in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    print(f"chips of a {WIDTH_PX} x {HEIGHT_PX} frame of noise, one thread, medians of {options.rounds} turns")
    columns = (("faces", 5), ("featray ms", 11), ("grid_sample ms", 15), ("py-feat ms", 11))
    columns += (("x grid_sample", 14), ("x py-feat", 10), ("differ by", 10))
    print(" ".join(f"{name:>{width}}" for name, width in columns))
    for count in (1, 10):
        squares = crop_squares(boxes(count))
        ms = median_ms(
            {
                "ours": lambda squares=squares: cut_by_us(frame, squares),
                "lean": lambda squares=squares: cut_by_torch(frame, squares, copies=False),
                "theirs": lambda squares=squares: cut_by_torch(frame, squares, copies=True),
            },
            options.rounds,
        )
        theirs = cut_by_torch(frame, squares, copies=True).astype(np.int16)
        apart = np.abs(np.stack(cut_by_us(frame, squares)) - theirs).max()
        print(
            f"{count:5} {ms['ours']:11.2f} {ms['lean']:15.2f} {ms['theirs']:11.2f} {ms['lean'] / ms['ours']:14.1f} "
            f"{ms['theirs'] / ms['ours']:10.1f} {apart:10d}"
        )


if __name__ == "__main__":
    main()
