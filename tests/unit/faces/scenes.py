"""Clips with known faces, made of the bundled ones: heads of face.mp4 moved over pictures of no_face.mp4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from featray.config import DetectConfig
from featray.faces.detectors import open_detector
from featray.video.frame import Frame

WIDTH_PX, HEIGHT_PX, RATE = 640, 360, 25

Picture = NDArray[np.uint8]
Path2 = Callable[[int], tuple[float, float, float] | None]
"""Frame number to centre x, centre y and side of a head's square, px; None while it is away."""


@dataclass(frozen=True)
class Scene:
    """One shot: `frames` pictures of `background(i)` with heads on it, the first ones behind the later ones."""

    frames: int
    background: Callable[[int], Picture]
    heads: Sequence[tuple[Picture, Path2]] = ()


@dataclass(frozen=True)
class Props:
    """What scenes are made of: heads, uint8 `[n, n, 4]` with transparent corners, and wide pictures without faces."""

    anna: Picture
    bert: Picture
    room: Picture
    street: Picture


def load_props(clips: Path) -> Props:
    head = _head(_pictures(clips / "face.mp4", [40])[0])
    other = _head(_pictures(clips / "face.mp4", [300])[0])[:, ::-1].copy()
    other[..., :3] = np.clip(other[..., [2, 1, 0]] * np.asarray([0.9, 0.75, 0.7]) + 10, 0, 255).astype(np.uint8)
    first, last = _pictures(clips / "no_face.mp4", [0, 90])
    street = 255 - last[::-1]
    return Props(head, other, np.concatenate([first, first[:, ::-1]], 1), np.concatenate([street, street[:, ::-1]], 1))


Truth = list[list[list[float] | None]]
"""For each frame where each head's square is, xyxy in px, or None."""

CODECS = {
    "libx264": {"crf": "18", "preset": "veryfast", "sc_threshold": "0"},
    "mpeg4": {"qmin": "2", "qmax": "5", "bf": "2"},
}


def write_clip(place: Path, scenes: Sequence[Scene], *, codec: str = "libx264", keyframe_every: int = 40) -> Truth:
    """Encode scenes one after the other; where their heads are."""
    truth: Truth = []
    with av.open(str(place), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options={**CODECS[codec], "g": str(keyframe_every)})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for scene in scenes:
            for i in range(scene.frames):
                picture, squares = _render(scene, i)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = len(truth), Fraction(1, RATE)
                truth.append(squares)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return truth


def still(picture: Picture, *, x: int = 0) -> Callable[[int], Picture]:
    """A background that stands."""
    return lambda i: picture[:HEIGHT_PX, x : x + WIDTH_PX]


def pan(picture: Picture, *, px_a_frame: int) -> Callable[[int], Picture]:
    """A camera that turns over a wide picture, and starts again at its end."""
    room = picture.shape[1] - WIDTH_PX
    return lambda i: picture[:HEIGHT_PX, (s := abs((i * px_a_frame + room) % (2 * room) - room)) : s + WIDTH_PX]


def line(start: tuple[float, float], step: tuple[float, float], side: float, *, first: int = 0) -> Path2:
    """A head that moves evenly, from its first frame on."""
    return lambda i: (start[0] + step[0] * (i - first), start[1] + step[1] * (i - first), side) if i >= first else None


def _render(scene: Scene, i: int) -> tuple[Picture, list[list[float] | None]]:
    picture = scene.background(i).astype(np.float32)
    squares: list[list[float] | None] = []
    for head, path in scene.heads:
        where = path(i)
        squares.append(None if where is None else _paste(picture, head, *where))
    return picture.astype(np.uint8), squares


def _paste(picture: NDArray[np.float32], head: Picture, x: float, y: float, side: float) -> list[float]:
    """Put a head there, bilinearly, so that it moves by fractions of a pixel; its square."""
    left, top = x - side / 2, y - side / 2
    columns = np.arange(max(0, int(np.ceil(left))), min(WIDTH_PX, int(left + side)))
    rows = np.arange(max(0, int(np.ceil(top))), min(HEIGHT_PX, int(top + side)))
    if len(columns) and len(rows):
        u, v = (columns + 0.5 - left) / side * len(head) - 0.5, (rows + 0.5 - top) / side * len(head) - 0.5
        patch = _bilinear(head, v, u)
        alpha = patch[..., 3:] / 255
        place = np.ix_(rows, columns)
        picture[place] = picture[place] * (1 - alpha) + patch[..., :3] * alpha
    return [left, top, left + side, top + side]


def _bilinear(image: Picture, rows: NDArray[np.floating], columns: NDArray[np.floating]) -> NDArray[np.float32]:
    rows, columns = np.clip(rows, 0, len(image) - 1.001), np.clip(columns, 0, image.shape[1] - 1.001)
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    a = image[np.ix_(top, left)] * (1 - right) + image[np.ix_(top, left + 1)] * right
    b = image[np.ix_(top + 1, left)] * (1 - right) + image[np.ix_(top + 1, left + 1)] * right
    return np.asarray(a * (1 - down) + b * down, np.float32)


def _pictures(clip: Path, numbers: Sequence[int]) -> list[Picture]:
    with av.open(str(clip)) as container:
        return [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in numbers]


def _head(picture: Picture) -> Picture:
    """The square around the only face of a picture, twice its longer side, fading out in an ellipse."""
    frame = Frame.of(av.VideoFrame.from_ndarray(picture, format="rgb24"), index=0, pts_us=0)
    ((box,),) = (faces.box_xyxy for faces in open_detector(DetectConfig())([frame]))
    centre, half = (box[:2] + box[2:]) / 2, float(max(box[2:] - box[:2]))
    size = int(2 * half)
    left, top = (int(v) for v in centre - half)
    padded = np.pad(picture, ((size, size), (size, size), (0, 0)), mode="edge")
    head = padded[top + size : top + 2 * size, left + size : left + 2 * size]
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    alpha = np.clip((1 - np.hypot(x / 0.72, y / 0.9)) * 6, 0, 1)
    return np.concatenate([head, (alpha * 255).astype(np.uint8)[..., None]], axis=2)


@dataclass(frozen=True)
class Clip:
    """A clip and what is in it."""

    path: Path
    truth: Truth


def write_clips(folder: Path, props: Props) -> dict[str, Clip]:
    """What detection on few frames, and tracking, have to stand: by name."""
    anna, bert, room, street = props.anna, props.bert, still(props.room, x=100), still(props.street)
    scenes: dict[str, list[Scene]] = {
        "crossing": [
            Scene(130, room, [(anna, line((100, 110), (3.4, 0), 190)), (bert, line((540, 265), (-3.4, 0), 170))])
        ],
        "overlapping": [
            Scene(150, room, [(anna, line((100, 170), (3, 0), 200)), (bert, line((540, 190), (-3, 0), 190))])
        ],
        "passing_fast": [
            Scene(14, room, [(anna, line((40, 110), (42, 0), 190)), (bert, line((600, 265), (-42, 0), 170))])
        ],
        "entrance": [Scene(90, room, [(anna, line((320, 180), (0.5, 0), 220, first=38))])],
        "exit": [Scene(70, room, [(anna, lambda i: (320 + 0.5 * i, 180, 220) if i < 32 else None)])],
        "cuts": [
            Scene(33, room, [(anna, line((320, 180), (0.5, 0), 220))]),
            Scene(34, street, [(bert, line((330, 190), (-0.5, 0), 210))]),
            Scene(31, room),
            Scene(42, street, [(anna, line((200, 180), (0.5, 0), 220))]),
        ],
        "pan": [Scene(60, pan(props.room, px_a_frame=25), [(anna, lambda i: (320 + 130 * np.sin(i / 9), 180, 200))])],
    }
    return {
        name: Clip(place, write_clip(place, shots))
        for name, shots in scenes.items()
        for place in [folder / f"{name}.mp4"]
    }
