"""Convert DISFA+, `Labels/<subject>/<trial>/AU<n>.txt`, to labels of pictures.

A line of a file is `<picture> <intensity>`, with the picture's name as under `Images/<subject>/<trial>/`. A picture is
written if all files of the trial have it.

    python jobs/labels/disfa_plus.py DISFAPlusDataset --out disfa_plus.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labels_file import Row, lines, main

UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


def read(root: Path) -> Iterator[Row]:
    for trial in sorted(path for path in (root / "Labels").glob("*/*") if path.is_dir()):
        files = {f"AU{unit:02d}": trial / f"AU{unit}.txt" for unit in UNITS}
        if not all(path.is_file() for path in files.values()):
            continue
        coded = {name: _intensities(path) for name, path in files.items()}
        for picture in sorted(set.intersection(*map(set, coded.values()))):
            yield {
                "video": f"{trial.parent.name}/{trial.name}",
                "picture": picture,
                "subject": trial.parent.name,
                "trial": trial.name,
                **{name: values[picture] for name, values in coded.items()},
            }


def _intensities(path: Path) -> dict[str, int]:
    parts = (line.split() for line in lines(path) if not line.startswith("#"))
    return {found[0]: int(found[1]) for found in parts if len(found) >= 2}


if __name__ == "__main__":
    main(__doc__, read)
