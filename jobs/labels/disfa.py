"""Convert DISFA, `ActionUnit_Labels/<subject>/<subject>_au<n>.txt`, to labels of the left camera's videos.

A line of a file is `<frame>,<intensity>`, frames counted from 1. The videos are `LeftVideo<subject>_comp.avi`.

    python jobs/labels/disfa.py DISFA --out disfa.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labels_file import Row, lines, main

UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


def read(root: Path) -> Iterator[Row]:
    for folder in sorted(path for path in (root / "ActionUnit_Labels").glob("*") if path.is_dir()):
        coded = {f"AU{unit:02d}": _intensities(folder / f"{folder.name}_au{unit}.txt") for unit in UNITS}
        for frame in sorted(set.intersection(*map(set, coded.values()))):
            yield {
                "video": f"LeftVideo{folder.name}_comp",
                "frame_index": frame - 1,
                "subject": folder.name,
                **{name: values[frame] for name, values in coded.items()},
            }


def _intensities(path: Path) -> dict[int, int]:
    return {int(frame): int(intensity) for frame, intensity in (line.split(",")[:2] for line in lines(path))}


if __name__ == "__main__":
    main(__doc__, read)
