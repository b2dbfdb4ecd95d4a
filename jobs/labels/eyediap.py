"""Convert EYEDIAP, `Data/<session>/`, to labels of the VGA videos, `<session>/rgb_vga.mov`.

Gaze goes from the midpoint of the eyes (the last six values of a line of `eye_tracking.txt`) to the target (the last
three of `screen_coordinates.txt` or `ball_tracking.txt`), both in metres in the world's frame; the rotation R of
`rgb_vga_calibration.txt` converts it to the camera's frame, as row vector times R. Frames are counted from 0. If
`Annotations/GazeState/GazeStateExport/Data/<session>/gaze_state.txt` exists, only frames that it marks OK are
written. A session is `<subject>_<condition>_<target>_<head>`, such as `1_A_DS_S`; the head is still (S) or moves (M).

    python jobs/labels/eyediap.py EYEDIAP --out eyediap.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from labels_file import Row, gaze_columns, lines, main
from numpy.typing import NDArray

STATES = "Annotations/GazeState/GazeStateExport/Data"
TARGETS = ("screen_coordinates.txt", "ball_tracking.txt")


def read(root: Path) -> Iterator[Row]:
    for folder in sorted(path for path in (root / "Data").glob("*_*_*_*") if path.is_dir()):
        target = next((folder / name for name in TARGETS if (folder / name).is_file()), None)
        if target is None:
            continue
        targets, eyes = _values(target), _values(folder / "eye_tracking.txt")
        rotation, states = _rotation(folder / "rgb_vga_calibration.txt"), _states(root / STATES / folder.name)
        subject, _, kind, head = folder.name.split("_")[:4]
        for frame in sorted(targets.keys() & eyes.keys()):
            place, middle = targets[frame][-3:], eyes[frame][-6:].reshape(2, 3).mean(axis=0)
            if np.any(place) and np.any(middle) and states.get(frame, "OK") == "OK":
                yield {
                    "video": f"{folder.name}/rgb_vga.mov",
                    "frame_index": frame,
                    "subject": subject,
                    "target": kind,
                    "head": head,
                    **gaze_columns((place - middle) @ rotation),
                }


def _values(path: Path) -> dict[int, NDArray[np.float64]]:
    """Return values by frame. The first line is a heading; frames without values are left out."""
    found = {}
    for line in lines(path)[1:]:
        frame, *values = line.split(";")
        if len(values) >= 3 and all(value.strip() for value in values):
            found[int(frame)] = np.array(values, float)
    return found


def _rotation(path: Path) -> NDArray[np.float64]:
    """Return R. The file has four parts, each under a heading: size (one line), intrinsics (three), R (three) and T."""
    return np.array([line.split(";")[:3] for line in lines(path)[7:10]], float)


def _states(folder: Path) -> dict[int, str]:
    path = folder / "gaze_state.txt"
    parts = (line.split() for line in lines(path)) if path.is_file() else ()
    return {int(words[0]): words[1] for words in parts if len(words) == 2 and words[0].isdigit()}


if __name__ == "__main__":
    main(__doc__, read)
