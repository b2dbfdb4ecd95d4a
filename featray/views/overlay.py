"""Views. Draw faces on a frame: boxes, track ids, landmarks, mesh, gaze and head pose; or hide them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from featray.views.canvas import Strokes, legible_on, mixed, tag, track_colour
from featray.views.contours import CONTOURS
from featray.views.directions import gaze_vectors, head_axes
from featray.views.selection import Face

LAYERS: Final = ("boxes", "landmarks", "mesh", "gaze", "pose")
"""Layers that can be drawn on a face."""

MEASURED: Final = frozenset({"boxes", "landmarks"})
"""Layers from the detector rather than the network."""

BLUR_CELLS: Final = 8
"""Cells per side to which a hidden head is reduced: only 64 colours remain."""

_HEAD: Final = 1.35
"""Side of the hidden square relative to the cropped square: hair and ears also identify a person."""

_AXES: Final = ((255, 92, 92), (120, 220, 110), (90, 150, 255))
_GAZE: Final = (255, 236, 120)


Square = tuple[float, float, float]
"""x and y of the top-left corner and side, px of the upright frame."""


def cut_square(face: Face) -> Square:
    """Return the square that was cropped for the network.

    Raises:
        OutputError: a number of it is missing, or it is empty.
    """
    if face["crop_side"] <= 0:
        raise face.damaged("crop_side", face["crop_side"])
    return face["crop_x"], face["crop_y"], face["crop_side"]


def hide(picture: Image.Image, squares: Iterable[Square], scale: float) -> None:
    """Reduce heads irreversibly to a few flat cells.

    Args:
        picture: modified in place.
        squares: squares as cropped for the network; a larger square about the same centre is hidden.
        scale: px of the picture per px of the frame.
    """
    for x, y, side in squares:
        middle_x, middle_y, half = (x + side / 2) * scale, (y + side / 2) * scale, side * _HEAD / 2 * scale
        box = (
            max(0, int(middle_x - half)),
            max(0, int(middle_y - half)),
            min(picture.width, int(middle_x + half) + 1),
            min(picture.height, int(middle_y + half) + 1),
        )
        if box[0] < box[2] and box[1] < box[3]:
            cells = picture.crop(box).resize((BLUR_CELLS, BLUR_CELLS), Image.Resampling.BOX)
            picture.paste(cells.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST), box[:2])


def draw_faces(picture: Image.Image, faces: Iterable[Face], scale: float, layers: frozenset[str]) -> None:
    """Draw the rows of a frame's faces, the least prominent first.

    Args:
        picture: the upright frame, scaled; modified in place.
        faces: faces of that frame.
        scale: px of the picture per px of the frame.
        layers: subset of LAYERS.
    """
    unit = max(0.6, picture.height / 720)
    for face in sorted(faces, key=lambda face: face.area_px):
        _draw_strokes(picture, face, scale, unit, layers)
        if "boxes" in layers:
            _draw_box(picture, face, scale, unit)


def _draw_box(picture: Image.Image, face: Face, scale: float, unit: float) -> None:
    """Draw the box, with its edges along the middle of the outline."""
    colour = track_colour(face.track_id)
    x1, y1, x2, y2 = (round(edge * scale) for edge in face.box_xyxy)
    draw = ImageDraw.Draw(picture)
    width = max(2, round(2.5 * unit))
    half = width // 2
    draw.rectangle((x1 - half, y1 - half, x2 + half, y2 + half), outline=colour, width=width)
    size = 17 * unit
    # Keep the label inside the picture, even if the box is partly outside.
    bottom = y1 - half if y1 - half >= size * 1.45 else max(y1, 0) + size * 1.45
    tag(draw, (max(0, x1 - half), bottom), f"track {face.track_id}", size, colour, legible_on(colour))


def _draw_strokes(picture: Image.Image, face: Face, scale: float, unit: float, layers: frozenset[str]) -> None:
    x, y, side = (value * scale for value in cut_square(face))
    strokes = Strokes(picture, (x - side * 0.2, y - side * 0.2, x + side * 1.2, y + side * 1.2), 2 if side > 500 else 3)
    colour = track_colour(face.track_id)
    thin = float(np.clip(side / 220, 0.8, 2.2))
    if "mesh" in layers and face.mesh_xyz is not None:
        vertices = face.mesh_xyz[:, :2] * scale
        strokes.dots(vertices, mixed((255, 255, 255), colour, 0.4), 0.45 * thin, 0.55)
        for path in CONTOURS:
            strokes.line(vertices[list(path)], mixed((255, 255, 255), colour, 0.6), 0.8 * thin, 0.9)
    points = None if face.landmarks_xy is None else face.landmarks_xy * scale
    if "landmarks" in layers and points is not None:
        strokes.dots(points, (12, 14, 18), 2.6 * thin, 0.6)
        strokes.dots(points, (255, 255, 255), 1.8 * thin)
    if "pose" in layers:
        origin = np.asarray([x + side / 2, y + side / 2]) if points is None else points[2]
        axes = head_axes(face["pose_pitch"], face["pose_yaw"], face["pose_roll"])
        for axis in np.argsort(-axes[:, 2]):  # draw the axis that points at the viewer last
            strokes.arrow(origin, origin + axes[axis, :2] * side * 0.38, _AXES[axis], 1.6 * thin)
    if "gaze" in layers and points is not None:
        across, down, _ = gaze_vectors(face["gaze_yaw"], face["gaze_pitch"])
        for eye in points[:2]:
            strokes.arrow(eye, eye + np.asarray([across, down]) * side * 0.45, _GAZE, 1.6 * thin)
    strokes.lay_over()
