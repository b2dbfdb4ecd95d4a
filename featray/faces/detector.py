"""Faces. The interface of face detectors: their input and their output.

Every detector returns coordinates in the same frame of reference: pixels of the upright
original frame, x right, y down, the outer corner of the top-left pixel at (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featray.config import cache_dir

if TYPE_CHECKING:  # so that this module imports without PyAV and fsspec
    from featray.store.location import Location
    from featray.video.frame import Frame


@dataclass(frozen=True)
class Faces:
    """The faces of one frame, best score first, ties by smaller x.

    Attributes:
        box_xyxy: float32 `[n, 4]`, px of the upright original frame; may reach beyond it.
        score: float32 `[n]`, in [0, 1].
        landmarks5: float32 `[n, 5, 2]`, px: right eye, left eye, nose tip, right and left
            mouth corner. Right and left are the subject's, so the right eye of a face that
            looks at the camera lies on the viewer's left. NaN where unknown.
    """

    box_xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    landmarks5: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def none(cls) -> Faces:
        """Return an empty set of faces."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


class Detector(Protocol):
    """Finds the faces of frames.

    Attributes:
        batch_frames: preferred number of frames per call; 1 on a CPU, where batches gain nothing.
        by_picture: whether the answer depends only on a frame's picture, so that a repeated picture is detected once.
    """

    batch_frames: int
    by_picture: bool

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """Return the faces of each frame; the answer must not depend on which frames share a call."""
        ...


@dataclass(frozen=True)
class KnownFile:
    """A file on this machine that a detector or an embedder reads; `revision` is None for the user's own file."""

    path: Path
    sha256: str
    license: str
    revision: str | None = None


@dataclass(frozen=True)
class DetectorFiles:
    """Folders and options with which detectors find their files.

    Attributes:
        cache_dir: folder of pulled weights (`featray models pull`) and converted networks.
        storage_options: fsspec options for the boxes file.
        boxes: location that replaces the address of the boxes file, served by a process with network access.
        sha256: digest of the weights that the run was planned with; others are refused. None accepts any.
    """

    cache_dir: Path = field(default_factory=cache_dir)
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)
    sha256: str | None = None
    boxes: Location | None = None
