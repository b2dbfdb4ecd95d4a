"""Convert Aff-Wild2 (valence and arousal, `VA_Estimation_Challenge/Validation_Set/<video>.txt`) to labels of videos.

The first line is `valence,arousal`; each following line is one frame, in order. -5 means unknown: such frames are left
out. Videos with two people have two files: `<video>_left.txt` or `<video>_right.txt` for the person on that side of
the picture, and `<video>.txt` for the other. The files do not say where that person is, so these videos are left out
and listed on the terminal. `split` is the folder's name.

    python jobs/labels/aff_wild2.py Aff-Wild2 --out aff_wild2.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from labels_file import Row, lines, main

SIDES = ("_left", "_right")


def read(root: Path) -> Iterator[Row]:
    paths = sorted(root.rglob("VA_Estimation_Challenge/Validation_Set/*.txt"))
    shared = {path.stem.removesuffix(side) for path in paths for side in SIDES if path.stem.endswith(side)}
    if shared:
        print(f"left out, since they have labels of several people: {', '.join(sorted(shared))}", file=sys.stderr)
    for path in paths:
        if path.stem in shared or path.stem.endswith(SIDES):
            continue
        for frame, line in enumerate(lines(path)[1:]):
            valence, arousal = (float(value) for value in line.split(",")[:2])
            if min(valence, arousal) >= -1:
                yield {
                    "video": path.stem,
                    "frame_index": frame,
                    "split": path.parent.name,
                    "valence": valence,
                    "arousal": arousal,
                }


if __name__ == "__main__":
    main(__doc__, read)
