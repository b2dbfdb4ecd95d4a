"""Convert Gaze360, `metadata.mat`, to labels of the head crops, `imgs/<recording>/head/<person>/<frame>.jpg`.

`gaze_dir` is in the frame of the eye: x to the left, y up, z away from the camera; featray's camera frame has x to the
right and y down, so both signs are flipped. `split` is the data set's own (0 train, 1 val, 2 test, 3 unused).
Identities are per recording, and one person may have several.

    python jobs/labels/gaze360.py Gaze360 --out gaze360.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from labels_file import Row, gaze_columns, main
from scipy.io import loadmat

SPLITS = ("train", "val", "test", "unused")


def read(root: Path) -> Iterator[Row]:
    found = loadmat(root / "metadata.mat", squeeze_me=True)
    recordings = [str(name).strip() for name in np.atleast_1d(found["recordings"])]
    columns = (np.atleast_1d(found[name]) for name in ("recording", "person_identity", "frame", "split"))
    directions = np.atleast_2d(found["gaze_dir"]).astype(float)
    for recording, person, frame, split, gaze in zip(*columns, directions, strict=True):
        name = recordings[int(recording)]
        yield {
            "picture": f"{name}/head/{int(person):06d}/{int(frame):06d}.jpg",
            "subject": f"{name}/{int(person):06d}",
            "split": SPLITS[int(split)],
            **gaze_columns(gaze * [-1, -1, 1]),
        }


if __name__ == "__main__":
    main(__doc__, read)
