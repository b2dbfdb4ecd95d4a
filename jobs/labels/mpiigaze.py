"""Convert MPIIGaze, as whole faces (MPIIFaceGaze, `p<nn>/p<nn>.txt`), to labels of pictures.

A line has 28 values: the picture, the target on the screen, six landmarks, the head's rotation and translation, the
face's centre and the target in the camera's frame (millimetres; x right, y down, z away), and the eye. Gaze is the
direction from the face's centre to the target.

    python jobs/labels/mpiigaze.py MPIIFaceGaze --out mpiigaze.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from labels_file import Row, gaze_columns, lines, main

CENTRE, TARGET = slice(21, 24), slice(24, 27)


def read(root: Path) -> Iterator[Row]:
    for folder in sorted(path for path in root.glob("p*") if path.is_dir()):
        for line in lines(folder / f"{folder.name}.txt"):
            values = line.split()
            centre, target = (np.array(values[part], float) for part in (CENTRE, TARGET))
            yield {
                "video": folder.name,
                "picture": values[0],
                "subject": folder.name,
                **gaze_columns(target - centre),
            }


if __name__ == "__main__":
    main(__doc__, read)
