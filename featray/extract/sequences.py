"""Extract. Cut sequences of pictures into units, and read their pictures one by one.

A unit carries the list of its pictures. Planning lists the folder or tar again, in the process with network access; it
opens no picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import IO, Final, Self

from featray.config import DecodeConfig, FramesPerSecond
from featray.errors import ErrorCode, StorageError, VideoError, counted
from featray.sources.entry import suffix
from featray.sources.listing import Video
from featray.sources.picture_times import PTS_COLUMN, read_times
from featray.sources.sequences import Still, digest_of, list_stills
from featray.store.failures import explain, transport_errors, unreadable_code
from featray.store.location import Location
from featray.store.storage import open_ranges
from featray.video.container import Header
from featray.video.stills import MAX_FILE_BYTES
from featray.video.units import WHOLE_VIDEO, Picture, Sampler, Unit

_CODECS: Final = {".png": "png", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp", ".dib": "bmp"}
"""FFmpeg's codec names; every other suffix is a JPEG."""


def cut_sequence(
    video: Video, location: Location, settings: DecodeConfig, stride: int
) -> tuple[Header, tuple[Unit, ...]]:
    """List a sequence's pictures and cut them into units of at most `unit_frames` sampled pictures.

    Args:
        video: a video with a `sequence`.
        location: its folder or tar.
        settings: decoding settings.
        stride: units begin at sampled pictures whose number is a multiple of this.

    Raises:
        VideoError: the pictures are gone, changed since they were listed, or cannot be sampled with these settings.
        StorageError: the folder or tar cannot be listed.
    """
    sequence = video.sequence
    assert sequence is not None
    stills, problem = list_stills(location, sequence)
    if sequence.held == "folder" and digest_of(stills).content_id != video.content_id.partition("@")[0]:
        text = f"{video.uri}: its pictures changed after they were listed; run again"
        raise VideoError(text, code=ErrorCode.FETCH_FAILED)
    if not stills:
        raise VideoError(f"{video.uri}: {problem or 'has no pictures'}", code=ErrorCode.BAD_SHARD)
    ticks, tick = _times(video, len(stills))
    if tick is None and isinstance(settings.sample, FramesPerSecond):
        text = f"{video.uri}: its pictures have no times, which decode.sample fps needs; set input.sequence_fps"
        raise VideoError(text, code=ErrorCode.UNSUPPORTED_CONTAINER)
    sampler = Sampler(settings.sample, tick or Fraction(1), WHOLE_VIDEO[0])
    taken = [
        _picture(i, still, tick and ticks[i] * tick) for i, still in enumerate(stills) if sampler.takes(i, ticks[i])
    ]
    units = _cut(taken, max(settings.unit_frames // stride, 1) * stride, stride, unrelated=not sequence.related)
    if problem is not None:
        units[-1] = replace(units[-1], problem=(ErrorCode.BAD_SHARD, problem))
    kinds = Counter(_CODECS.get(suffix(still.name), "mjpeg") for still in stills)
    header = Header(
        container="image2",
        codec=kinds.most_common(1)[0][0],
        time_base=None if tick is None else f"{tick.numerator}/{tick.denominator}",
        duration_us=None if tick is None else round((ticks[-1] - ticks[0] + (not sequence.timed)) * tick * 1_000_000),
        frames_promised=len(stills),
        frames_estimated=len(stills),
        transfer="iec61966-2-1",  # sRGB: pictures are converted to it
    )
    return header, tuple(units)


def _times(video: Video, count: int) -> tuple[Sequence[int], Fraction | None]:
    """Return the time of each picture in ticks, and the length of a tick in seconds; None if there are no times."""
    sequence = video.sequence
    assert sequence is not None
    times = read_times(video.extra) if sequence.timed else None
    if times is None:
        return range(count), None if sequence.fps is None else _tick(sequence.fps)
    if len(times) != count:
        has = f"{counted(len(times), 'time')} in {PTS_COLUMN} for {counted(count, 'picture')}"
        text = f"{video.uri}: its row of the manifest has {has}"
        raise VideoError(text, code=ErrorCode.BAD_MANIFEST_ROW)
    return times, Fraction(1, 1_000_000)


def _tick(fps: float) -> Fraction:
    """Return the seconds per picture, exact if `Header.time_base` can hold that: 29.97, but not 29.97002997002997."""
    exact = Fraction(str(fps))
    fits = max(exact.numerator, exact.denominator) < 10**10
    return 1 / (exact if fits else exact.limit_denominator(1_000_000))


def _picture(index: int, still: Still, seconds: Fraction | None) -> Picture:
    pts_us = None if seconds is None else round(seconds * 1_000_000)
    return Picture(index, still.name, still.size_bytes, still.offset, pts_us, still.problem)


def _cut(taken: list[Picture], length: int, stride: int, *, unrelated: bool) -> list[Unit]:
    units = []
    for number, start in enumerate(range(0, len(taken), length)):
        following = taken[start + length : start + length + 1]
        units.append(
            Unit(
                number,
                first_index=taken[start].position if number else 0,
                end_index=following[0].position if following else None,
                pictures=tuple(taken[start : start + length] + (following if stride > 1 else [])),
                unrelated=unrelated,
            )
        )
    return units


class PictureReader:
    """Reads the pictures of a sequence; a context manager, because it keeps a tar open.

    Attributes:
        fetched_bytes: bytes that came from remote storage, not from the local disk.
    """

    def __init__(self, video: Video, location: Location) -> None:
        assert video.sequence is not None
        self._location = folder_of(location, video.sequence.pattern)
        self._in_tar = video.sequence.held == "tar"
        self._size_bytes = video.size_bytes
        self._tar: IO[bytes] | None = None
        self.fetched_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tar is not None:
            self._tar.close()

    def __call__(self, picture: Picture) -> bytes:
        """Return the bytes of a picture.

        Raises:
            VideoError: the picture is too large or cannot be read.
        """
        read = self._from_tar if self._in_tar else self._from_folder
        data = checked(picture, read)
        self.fetched_bytes += 0 if self._location.is_local else len(data)
        return data

    def _from_tar(self, picture: Picture) -> bytes:
        if self._tar is None:
            self._tar = open_ranges(self._location, size_bytes=self._size_bytes if self._size_bytes >= 0 else None)
        self._tar.seek(picture.offset or 0)
        return self._tar.read(picture.size_bytes)

    def _from_folder(self, picture: Picture) -> bytes:
        if picture.name.startswith("/") or ".." in picture.name.split("/"):  # the plan may be forged
            raise VideoError("the name points outside the sequence's folder", code=ErrorCode.BAD_SHARD)
        return read_whole(self._location.child(picture.name), picture.size_bytes)


def folder_of(location: Location, pattern: str | None) -> Location:
    """Return the folder of a sequence, without the pattern that selects its files."""
    if pattern is None:
        return location
    ends = location.path.rpartition("/")[0], location.uri.rpartition("/")[0]
    return Location(location.fs, *ends, location.root)


def read_whole(location: Location, size_bytes: int) -> bytes:
    """Return the bytes of a file, at most one more than allowed; a known size saves a request."""
    with open_ranges(location, size_bytes=size_bytes if size_bytes >= 0 else None, cached=False) as file:
        most = MAX_FILE_BYTES + 1
        # Ask for no more than needed: Python allocates what is asked for, which costs 0.1 ms per small picture.
        data = bytes(file.read(most if size_bytes < 0 else min(size_bytes + 1, most)))
        return data if len(data) <= size_bytes or size_bytes < 0 else data + bytes(file.read(most - len(data)))


def checked(picture: Picture, read: Callable[[Picture], bytes]) -> bytes:
    """Return the bytes that `read` gives for a picture.

    Raises:
        VideoError: the picture is too large or cannot be read.
    """
    if picture.problem is not None:
        raise VideoError(picture.problem, code=ErrorCode.BAD_SHARD)
    data = b""
    if picture.size_bytes <= MAX_FILE_BYTES:
        try:
            data = read(picture)
        except StorageError as error:
            raise VideoError(str(error), code=unreadable_code(error)) from None
        except transport_errors() as error:
            raise VideoError(explain(error), code=unreadable_code(error)) from None
    if max(picture.size_bytes, len(data)) > MAX_FILE_BYTES:
        text = f"a file of {max(picture.size_bytes, len(data)):,} bytes; the limit for a picture is {MAX_FILE_BYTES:,}"
        raise VideoError(text, code=ErrorCode.TOO_LARGE)
    return data
