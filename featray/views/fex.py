"""Views. Convert a selection of `faces` to py-feat's `Fex`, with py-feat's column names.

Names, units and signs are those of `Detectorv2` in py-feat 2.1.5, so existing code for a Fex
(`.aus`, `.emotions`, `.landmarks`, plots, statistics) continues to work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.errors import UsageError
from featray.names import (
    AU_NAMES_24,
    BLENDSHAPE_NAMES,
    DLIB68_VERTICES,
    EMOTION_NAMES_8,
    MESH_VERTICES,
)
from featray.unloaded import show_pandas

if TYPE_CHECKING:
    import pandas as pd

_INSTALL: Final = "pip install 'featray[fex]'"

_GROUPS: Final[dict[str, dict[str, str]]] = {
    "facebox": {
        "FaceRectX": "crop_x",
        "FaceRectY": "crop_y",
        "FaceRectWidth": "crop_side",
        "FaceRectHeight": "crop_side",
        "FaceScore": "score",
    },
    "facepose": {
        "Pitch": "pose_pitch",
        "Roll": "pose_roll",
        "Yaw": "pose_yaw",
        "X": "pose_x",
        "Y": "pose_y",
        "Z": "pose_z",
    },
    "au": {name: name for name in AU_NAMES_24},
    "emotion": {name.capitalize(): f"emotion_{name}" for name in EMOTION_NAMES_8},
    "gaze": {name: name for name in ("gaze_pitch", "gaze_yaw", "gaze_angle")},
    "blendshape": {"_neutral" if name == "neutral" else name: name for name in BLENDSHAPE_NAMES},
}
"""py-feat's groups of columns: py-feat's name and featray's name of each."""

_FACTS: Final = {"frame": "frame_index", "FrameHeight": "height", "FrameWidth": "width"}


def to_fex(selection: pd.DataFrame | pa.Table) -> Any:
    """Return a `Fex` of py-feat from rows of `faces`, optionally joined with `blendshapes`, `mesh` and `videos`.

    Groups of columns that the selection lacks are omitted from the Fex. Columns that py-feat
    has no name for (`video_id`, `pts_us`, `track_id`, `box_x1`, ...) are appended after its own.

    - `FaceRect*` is the square that was cropped for the network, as in `Detectorv2`, in pixels
      of the upright frame; the detector's box stays in `box_*`.
    - `mesh_xyz` becomes the 68 landmarks (`x_0`, ..., `y_67`, frame pixels) and `mesh_x_*`,
      `mesh_y_*` (frame pixels), `mesh_z_*` (relative depth).
    - `approx_time` (minutes:seconds) comes from `pts_us`; `input` is `uri` where `videos` was
      joined, else `video_id`; `FrameHeight` and `FrameWidth` need `videos`.
    - There are no identities; `person_id`, from the view `features`, is kept unchanged.

    Args:
        selection: a pandas DataFrame or a pyarrow Table with featray's column names.

    Raises:
        UsageError: py-feat is not installed, or `selection` has no columns of `faces`.

    """
    fex_type = _import_fex()
    frame, groups = fex_columns(selection)
    return fex_type(
        frame,
        **{f"{group}_columns": names or None for group, names in groups.items()},
        detector="featray",
        facepose_model="multitask",
        gaze_model="multitask",
    )


def fex_columns(selection: pd.DataFrame | pa.Table) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Return the columns of `to_fex` as a DataFrame, without py-feat, and the names in each of py-feat's groups.

    Raises:
        UsageError: `selection` has no columns of `faces`.

    """
    show_pandas()
    import pandas as pd

    frame = selection.to_pandas() if isinstance(selection, pa.Table) else selection
    if not isinstance(frame, pd.DataFrame):
        raise UsageError(f"to_fex: needs a pandas DataFrame or a pyarrow Table, not {type(frame).__name__}")
    if frame.columns.has_duplicates:
        doubled = frame.columns[frame.columns.duplicated()][0]
        raise UsageError(f"to_fex: the selection has column {doubled!r} twice; join tables with USING")
    groups: dict[str, dict[str, Any]] = {
        group: {theirs: frame[ours] for theirs, ours in names.items() if ours in frame}
        for group, names in _GROUPS.items()
    }
    points, mesh = _mesh(frame)
    groups["landmark"] = points
    if not any(groups.values()):
        raise UsageError("to_fex: no column of the faces, blendshapes or mesh tables is in the selection")
    feelings = {name: frame[name] for name in ("valence", "arousal") if name in frame}
    order = ("facebox", "landmark", "facepose", "au", "emotion")
    columns = {name: values for group in order for name, values in groups[group].items()}
    columns |= feelings | groups["gaze"] | mesh | groups["blendshape"] | _facts(frame)
    taken = {ours for names in (*_GROUPS.values(), _FACTS) for ours in names.values()} | {"mesh_xyz"}
    kept = {name: frame[name] for name in frame.columns if name not in taken and name not in columns}
    made = pd.DataFrame(columns | kept, index=frame.index)
    return made, {group: list(found) for group, found in groups.items()}


def _import_fex() -> Any:
    try:
        from feat.data import Fex
    except ModuleNotFoundError as error:
        raise UsageError(f"to_fex: needs py-feat, and {error.name} is not installed; {_INSTALL}") from error
    return Fex


def _mesh(frame: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the 68 landmarks and the whole mesh, axis by axis as in py-feat; empty without `mesh_xyz`."""
    if "mesh_xyz" not in frame:
        return {}, {}
    meshes = frame["mesh_xyz"].tolist()
    if any(mesh is None or np.shape(mesh) != (3 * MESH_VERTICES,) for mesh in meshes):
        raise UsageError(f"to_fex: mesh_xyz must hold {3 * MESH_VERTICES} numbers per row, as in the mesh table")
    mesh_xyz = np.asarray(meshes, np.float32).reshape(len(frame), MESH_VERTICES, 3)
    vertices = {
        f"mesh_{axis}_{vertex}": mesh_xyz[:, vertex, position]
        for position, axis in enumerate("xyz")
        for vertex in range(MESH_VERTICES)
    }
    points = {
        f"{axis}_{point}": vertices[f"mesh_{axis}_{vertex}"]
        for axis in "xy"
        for point, vertex in enumerate(DLIB68_VERTICES)
    }
    return points, vertices


def _facts(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the origin of each row, under py-feat's names."""
    facts: dict[str, Any] = {theirs: frame[ours] for theirs, ours in _FACTS.items() if ours in frame}
    source = next((name for name in ("uri", "video_id") if name in frame), None)
    if source is not None:
        facts["input"] = frame[source]
    if "pts_us" in frame:
        # Use floats: a picture without a time has NaN.
        seconds = (frame["pts_us"].astype(float) // 1_000_000).tolist()
        facts["approx_time"] = [f"{s // 60:02.0f}:{s % 60:02.0f}" if s == s else None for s in seconds]
    return facts
