"""Persons. Name persons from a folder of named pictures: `anna.jpg`, or `anna/*.jpg`.

Faces are detected, cropped, aligned and embedded by the same code as in a run. A person gets the name whose pictures
are nearest to its centre, if their cosine reaches the clustering threshold. No data of the pictures is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featray.config import DecodeConfig, DetectConfig
from featray.config_identify import IdentifyConfig
from featray.errors import ErrorCode, UsageError, VideoError, counted
from featray.faces.crop import crop_squares, cut_chips
from featray.faces.detectors import open_detector
from featray.faces.embedder import embed_chips, open_embedder, unit
from featray.store.failures import explain, unreadable_code
from featray.video.decode import DecodeAccount
from featray.video.stills import MAX_FILE_BYTES, decode_stills
from featray.video.units import Picture, Unit


@dataclass(frozen=True)
class Gallery:
    """Named faces.

    Attributes:
        names: sorted.
        templates: float32 `[n, width]`, of length 1: the mean over each name's pictures.
        problems: one line per skipped picture.
    """

    names: list[str]
    templates: NDArray[np.float32]
    problems: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Return an identifier of the gallery's content: 12 hex digits."""
        text = "\0".join(self.names).encode() + b"\0" + np.round(self.templates, 4).tobytes()
        return hashlib.sha256(text).hexdigest()[:12]


def read_gallery(folder: Path, identify: IdentifyConfig) -> Gallery:
    """Embed the faces in a folder of pictures.

    Args:
        folder: contains `name.jpg` or `name/*.jpg`, or both.
        identify: embedder that made the embeddings to compare with, and its weights.

    Raises:
        UsageError: the folder cannot be read, or no picture in it shows exactly one face.
        FeatrayError: as raised by `open_embedder`.
    """
    named = _named_pictures(folder)
    detect, embed = open_detector(DetectConfig()), open_embedder(identify)
    sums: dict[str, NDArray[np.float32]] = {}
    problems = []
    for name, path in named:
        account = DecodeAccount()
        (frame,) = decode_stills(_bytes_of(path), _unit(path), DecodeConfig(), account)
        shown = str(path.relative_to(folder))
        if frame.is_missing:
            problems.append(f"{shown}: {account.errors[0][1].removeprefix(f'{path.name}: ')}")
            continue
        (faces,) = detect([frame])
        if len(faces) != 1:
            problems.append(f"{shown}: has {counted(len(faces), 'face')}; a gallery picture needs exactly one")
            continue
        squares = crop_squares(faces.box_xyxy)
        chips = np.stack(list(cut_chips(frame, squares)))
        sums[name] = sums.get(name, 0) + embed_chips(embed, chips, faces.landmarks5.astype(np.float64), squares)[0]
    if not sums:
        why = f" ({problems[0]})" if problems else ""
        raise UsageError(f"--gallery {folder}: no picture shows exactly one face; add name.jpg or name/*.jpg{why}")
    names = sorted(sums)
    return Gallery(names, unit(np.stack([sums[name] for name in names])), problems)


def _named_pictures(folder: Path) -> list[tuple[str, Path]]:
    """Return names and pictures, in order, without hidden files."""
    try:
        found = [*_files(folder), *(path for one in sorted(folder.iterdir()) if one.is_dir() for path in _files(one))]
    except OSError as error:
        raise UsageError(f"--gallery {folder}: cannot be read: {error.strerror}") from None
    named = [(path.stem if path.parent == folder else path.parent.name, path) for path in found]
    for name, path in named:
        if any("\ud800" <= char <= "\udfff" for char in name):
            raise UsageError(f"--gallery: {path}: its name is not valid UTF-8, so a table cannot store it; rename it")
    return named


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))


def _bytes_of(path: Path) -> Callable[[Picture], bytes]:
    def read(_: Picture) -> bytes:
        try:
            size_bytes = path.stat().st_size
            if size_bytes <= MAX_FILE_BYTES:
                return path.read_bytes()
        except OSError as error:
            raise VideoError(explain(error), code=unreadable_code(error)) from None
        text = f"a file of {size_bytes:,} bytes; the limit for a picture is {MAX_FILE_BYTES:,}"
        raise VideoError(text, code=ErrorCode.TOO_LARGE)

    return read


def _unit(path: Path) -> Unit:
    return Unit(0, pictures=(Picture(0, path.name, -1),))


@dataclass(frozen=True)
class Recognised:
    """Names given to persons.

    Attributes:
        name_of: name by the person's number.
        several: persons that are near several names: the number, the name given, and the other names.
        nobody: names that are near no person, with the cosine of the nearest one; None if there are no persons.
    """

    name_of: dict[int, str]
    several: list[tuple[int, str, list[str]]]
    nobody: list[tuple[str, float | None]]


def recognise(centres: NDArray[np.float32], gallery: Gallery, threshold: float) -> Recognised:
    """Match persons with the names of a gallery.

    Args:
        centres: float32 `[p, width]`, of length 1.
        gallery: named faces with templates of the same width.
        threshold: minimum cosine of two centres that are one person.
    """
    cosine = gallery.templates @ centres.T
    near = cosine >= threshold
    name_of, several = {}, []
    for person in np.flatnonzero(near.any(axis=0)).tolist():
        names = [gallery.names[i] for i in sorted(np.flatnonzero(near[:, person]), key=lambda i: -cosine[i, person])]
        name_of[person] = names[0]
        if len(names) > 1:
            several.append((person, names[0], names[1:]))
    nobody = [
        (name, float(row.max()) if row.size else None)
        for name, row in zip(gallery.names, cosine, strict=True)
        if not (row >= threshold).any()
    ]
    return Recognised(name_of, several, nobody)
