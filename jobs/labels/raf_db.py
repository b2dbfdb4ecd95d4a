"""Convert RAF-DB's basic emotions, `EmoLabel/list_patition_label.txt`, to labels of the original pictures.

A line is `<picture> <1 ... 7>`; `Annotation/boundingbox/<picture>_boundingbox.txt`, if it exists, has the face's
x1 y1 x2 y2. Only pictures named `test_...` belong to the official test set; the column `split` has this prefix.

    python jobs/labels/raf_db.py RAF-DB/basic --out raf_db.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labels_file import Row, lines, main

EMOTIONS = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "anger", 7: "neutral"}
BOX = ("box_x1", "box_y1", "box_x2", "box_y2")


def read(root: Path) -> Iterator[Row]:
    for line in lines(root / "EmoLabel" / "list_patition_label.txt"):
        picture, number = line.split()[:2]
        yield {
            "picture": picture,
            "split": picture.split("_")[0],
            "emotion": EMOTIONS[int(number)],
            **_box(root / "Annotation" / "boundingbox" / f"{Path(picture).stem}_boundingbox.txt"),
        }


def _box(path: Path) -> Row:
    if not path.is_file():
        return dict.fromkeys(BOX)
    return dict(zip(BOX, (float(value) for value in lines(path)[0].split()[:4]), strict=True))


if __name__ == "__main__":
    main(__doc__, read)
