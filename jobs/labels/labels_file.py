"""Shared code of these scripts: the command line, and writing a CSV of labels for `featray evaluate`."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Row = dict[str, object]


def main(doc: str, read: Callable[[Path], Iterable[Row]]) -> None:
    """Write the labels that `read` yields for the data set's folder to `--out`.

    Args:
        doc: docstring of the script.
        read: yields one row per label, values by column; None is written as an empty field.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    parser.add_argument("root", type=Path, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    given = parser.parse_args()
    if not given.root.is_dir():
        sys.exit(f"{given.root}: not a folder; give the data set's folder")
    rows = iter(read(given.root))
    first = next(rows, None)
    if first is None:
        sys.exit(f"{given.root}: has no labels in the form described in {Path(sys.argv[0]).name}")
    count = 1
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, first.keys())
        writer.writeheader()
        writer.writerow(first)
        for row in rows:
            writer.writerow(row)
            count += 1
    print(f"{given.out}: {count} labels")


def lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def gaze_columns(direction: NDArray[np.float64]) -> Row:
    """Return the columns of a gaze direction `[3]` in the camera's frame: x right, y down, z away from the camera."""
    unit = direction / np.linalg.norm(direction)
    return dict(zip(("gaze_x", "gaze_y", "gaze_z"), (f"{value:.9f}" for value in unit), strict=True))
