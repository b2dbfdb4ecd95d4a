"""Convert AffectNet's validation set, in either of its two published forms, to labels of pictures.

The older form is `Manual_Annot_files/validation.csv` (or `validation.csv`) with `subDirectory_filePath`, the face's
box, `expression`, `valence` and `arousal`; the newer one is `val_set/annotations/<id>_exp.npy`, `_val.npy` and
`_aro.npy` for `val_set/images/<id>.jpg`. Expressions other than the seven (contempt, none, uncertain, no
face) become `contempt` and `other`, which evaluate does not measure. A valence or arousal of -2 means unknown, and is
left empty.

    python jobs/labels/affectnet.py AffectNet --out affectnet.csv
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from labels_file import Row, main

EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
TABLES = ("Manual_Annot_files/validation.csv", "Manually_Annotated_file_lists/validation.csv", "validation.csv")


def read(root: Path) -> Iterator[Row]:
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    return _of_table(table) if table else _of_files(root / "val_set")


def _of_table(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            x, y, width, height = (float(row[f"face_{name}"]) for name in ("x", "y", "width", "height"))
            known = width > 0 and height > 0
            yield {
                "picture": row["subDirectory_filePath"],
                **_said(int(row["expression"]), float(row["valence"]), float(row["arousal"])),
                "box_x1": x if known else None,
                "box_y1": y if known else None,
                "box_x2": x + width if known else None,
                "box_y2": y + height if known else None,
            }


def _of_files(folder: Path) -> Iterator[Row]:
    for path in sorted((folder / "annotations").glob("*_exp.npy")):
        name = path.name.removesuffix("_exp.npy")
        numbers = (np.load(path.with_name(f"{name}_{what}.npy"), allow_pickle=False) for what in ("exp", "val", "aro"))
        expression, valence, arousal = (float(np.asarray(number).item()) for number in numbers)
        yield {"picture": f"{name}.jpg", **_said(int(expression), valence, arousal)}


def _said(expression: int, valence: float, arousal: float) -> Row:
    return {
        "emotion": EMOTIONS[expression] if expression < len(EMOTIONS) else "other",
        "valence": valence if abs(valence) <= 1 else None,
        "arousal": arousal if abs(arousal) <= 1 else None,
    }


if __name__ == "__main__":
    main(__doc__, read)
