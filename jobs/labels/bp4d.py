"""Convert BP4D, `AUCoding/AU_OCC/<subject>_<task>.csv` (or in `AU_OCC` or `AUCoding`), to labels of pictures.

The first line has the units' numbers, the first column the frame's. A picture is the frame's number with leading
zeros, `2440.jpg` or `0051.jpg`, under `<subject>/<task>/`. 9 means not coded, and is left empty.

    python jobs/labels/bp4d.py BP4D --out bp4d.csv
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from labels_file import Row, lines, main

UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 28)
"""Units that are coded in BP4D and estimated by featray."""

FOLDERS = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")


def read(root: Path) -> Iterator[Row]:
    folder = next((root / name for name in FOLDERS if list((root / name).glob("*_*.csv"))), root)
    for path in sorted(folder.glob("*_*.csv")):
        subject, task = path.stem.split("_")[:2]
        head, *rows = csv.reader(lines(path))
        places = {int(name): place for place, name in enumerate(head) if place and name.strip().isdigit()}
        for row in rows:
            yield {
                "video": f"{subject}/{task}",
                "picture": f"{int(row[0]):04d}.jpg",
                "subject": subject,
                "task": task,
                **{f"AU{unit:02d}": _coded(row[places[unit]]) if unit in places else None for unit in UNITS},
            }


def _coded(value: str) -> int | None:
    return int(value) if value.strip() in ("0", "1") else None


if __name__ == "__main__":
    main(__doc__, read)
