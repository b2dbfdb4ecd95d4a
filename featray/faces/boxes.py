"""Faces. `boxes`: faces from another detector, read from a Parquet or CSV file.

Columns, one row per face:

* `video`: the video's `video_id`, its URI (a path if it is local; `uri#member` in a shard file), or the last
  parts of its path, such as its file name, if no other video of the input has the same;
* `frame_index` (position in presentation order) or `pts_us` (must equal the frame's time exactly);
  if both are present, `frame_index` is used;
* `x1, y1, x2, y2`: px of the upright original frame, with square pixels unless `decode.square_pixels` is off;
* `score`, optional: in [0, 1]; 1 if absent;
* `landmarks5`, optional, Parquet only: 10 numbers, x and y of the subject's right eye, left eye, nose tip,
  right and left mouth corner; null if absent.

Only the rows of one video are in memory. From a Parquet file, only the row groups that may contain them
are read, so sort a large file by `video`. A CSV file is read in full for every video.
"""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featray.config import DetectConfig
from featray.errors import ConfigError, ErrorCode, StorageError, VideoError
from featray.faces.detector import DetectorFiles, Faces
from featray.sources.listing import Video
from featray.store.failures import explain, storage_errors, transport_errors, unreadable_code
from featray.store.location import Location, locate
from featray.store.storage import open_ranges
from featray.video.frame import Frame

_CORNERS: Final = ("x1", "y1", "x2", "y2")
_TIMES: Final = ("frame_index", "pts_us")
_LANDMARKS: Final = "landmarks5"
_TYPES: Final = {
    "video": pa.string(),
    **dict.fromkeys(_TIMES, pa.int64()),
    **dict.fromkeys((*_CORNERS, "score"), pa.float64()),
    _LANDMARKS: pa.list_(pa.float32()),
}
_FORMATS: Final = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}
_BLOCK_BYTES: Final = 1 << 20


class BoxesFile:
    """The file that `detect.boxes` names.

    Raises:
        ConfigError: on first use, if its name, format, columns or types are wrong.
        StorageError: it cannot be read.
    """

    def __init__(self, settings: DetectConfig, files: DetectorFiles) -> None:
        assert settings.boxes is not None
        self._settings = settings
        self._location = files.boxes or locate(settings.boxes, files.storage_options)
        self._dataset: Any = None
        self._latest: tuple[str, BoxesOfVideo] | None = None

    @property
    def uri(self) -> str:
        """Return the file's URI, safe to print."""
        return self._location.uri

    def sha256(self) -> str:
        """Return a digest of the file's content, 64 hex digits; open the file first to check that it is usable.

        The digest covers etag and size if the storage has etags, else the bytes.
        """
        self._open()
        with storage_errors(self.uri):
            info = self._location.fs.info(self._location.path)
            etag = info.get("ETag") or info.get("etag")
            if etag:
                return hashlib.sha256(f"etag:{etag}:{info.get('size')}".encode()).hexdigest()
            with open_ranges(self._location) as file:
                digest = hashlib.sha256()
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                return digest.hexdigest()

    def for_video(self, video: Video) -> BoxesOfVideo:
        """Return the detector for a video; it reads the file at the first frame. The latest detector is cached."""
        if self._latest is None or self._latest[0] != video.video_id:
            self._latest = video.video_id, BoxesOfVideo(self, video, self._settings)
        return self._latest[1]

    def named(self) -> set[str]:
        """Return the values of column `video`.

        Raises:
            ConfigError: the file is malformed.
            StorageError: it cannot be read.
        """
        names = set[str]()
        with storage_errors(self.uri):
            try:
                for batch in self._open().to_batches(columns=["video"], use_threads=False):
                    names.update(filter(None, batch["video"].unique().to_pylist()))
            except pa.ArrowInvalid as error:
                raise ConfigError(f"detect.boxes: {self.uri}: {self._one_line(error)}") from None
        return names

    def rows(self, video: Video) -> pa.Table:
        """Return the rows of a video, with the types of `_TYPES`.

        Raises:
            VideoError: they cannot be read.
        """
        import pyarrow.dataset as ds

        try:
            dataset = self._open()
            column = ds.field("video")
            of_video = functools.reduce(operator.or_, [column == name for name in names_of(video)])
            return dataset.to_table(filter=of_video, use_threads=False, batch_readahead=1, fragment_readahead=1)
        except ConfigError as error:
            raise VideoError(str(error), code=ErrorCode.BAD_BOXES) from None
        except pa.ArrowInvalid as error:
            raise VideoError(f"{self.uri}: {self._one_line(error)}", code=ErrorCode.BAD_BOXES) from None
        except StorageError as error:
            raise VideoError(str(error), code=unreadable_code(error)) from None
        except transport_errors() as error:
            raise VideoError(f"{self.uri}: {explain(error)}", code=unreadable_code(error)) from None

    def _one_line(self, error: Exception) -> str:
        """Return pyarrow's message without the path, which may be a signed URL."""
        return " ".join(str(error).replace(self._location.path, self.uri).split())[:300]

    def _open(self) -> Any:
        if self._dataset is None:
            suffix = self._location.path[self._location.path.rfind(".") :].lower()
            if suffix not in _FORMATS:
                raise ConfigError(f"detect.boxes: {self.uri}: the name must end in .parquet or .csv")
            with storage_errors(self.uri):
                try:
                    self._dataset = _open_dataset(self._location, _FORMATS[suffix])
                except pa.ArrowInvalid as error:
                    raise ConfigError(
                        f"detect.boxes: {self.uri}: cannot be read as {suffix[1:]} ({self._one_line(error)})"
                    ) from None
        return self._dataset


class BoxesOfVideo:
    """`Detector` for one video."""

    batch_frames = 1
    by_picture = False

    def __init__(self, file: BoxesFile, video: Video, settings: DetectConfig) -> None:
        self._file, self._video, self._settings = file, video, settings
        self._loaded: tuple[str, NDArray[np.int64], Faces] | None = None

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        """Return the boxes of each frame.

        Raises:
            VideoError: the rows of the video cannot be read or are malformed.
        """
        if self._loaded is None:
            self._loaded = self._load()
        time, keys, faces = self._loaded
        found = []
        for frame in frames:
            key = frame.index if time == "frame_index" else frame.pts_us
            if key is None:
                raise self._malformed("rows by pts_us, but the pictures have no times; give frame_index")
            first, end = np.searchsorted(keys, [key, key + 1])
            part = slice(int(first), min(int(end), int(first) + self._settings.max_faces))
            found.append(Faces(faces.box_xyxy[part], faces.score[part], faces.landmarks5[part]))
        return found

    def _load(self) -> tuple[str, NDArray[np.int64], Faces]:
        """Return the name of the time column, the ascending times of the boxes that pass the limits, and the boxes."""
        rows = self._file.rows(self._video)
        time = next(name for name in _TIMES if name in rows.column_names)
        if rows[time].null_count or any(rows[name].null_count for name in _CORNERS):
            raise self._malformed(f"a row without {time}, x1, y1, x2 or y2")
        keys = rows[time].to_numpy()
        boxes = np.stack([rows[name].to_numpy() for name in _CORNERS], axis=1).reshape(-1, 4)
        score = rows["score"].fill_null(1.0).to_numpy() if "score" in rows.column_names else np.ones(len(keys))
        landmarks = self._landmarks(rows)
        if not np.isfinite(boxes).all() or not (boxes[:, 2:] > boxes[:, :2]).all():
            raise self._malformed("a box that is not x1 < x2 and y1 < y2")
        if not ((score >= 0) & (score <= 1)).all():
            raise self._malformed("a score outside [0, 1]")
        small = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) < self._settings.min_size_px
        kept = np.flatnonzero(~small & (score >= self._settings.min_score))
        order = kept[np.lexsort((boxes[kept, 0], -score[kept], keys[kept]))]
        faces = Faces(boxes[order].astype(np.float32), score[order].astype(np.float32), landmarks[order])
        return time, keys[order], faces

    def _landmarks(self, rows: pa.Table) -> NDArray[np.float32]:
        landmarks = np.full((rows.num_rows, 10), np.nan, np.float32)
        if _LANDMARKS in rows.column_names:
            column = rows[_LANDMARKS].combine_chunks()
            given = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            values = column.drop_null()
            if len(given) and set(values.value_lengths().to_pylist()) != {10}:
                raise self._malformed(f"{_LANDMARKS} that are not 10 numbers")
            landmarks[given] = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 10)
        return landmarks.reshape(-1, 5, 2)

    def _malformed(self, what: str) -> VideoError:
        return VideoError(f"{self._file.uri}: has {what} for {self._video.uri}", code=ErrorCode.BAD_BOXES)


def _open_dataset(location: Location, kind: str) -> Any:
    """Open the file as a pyarrow dataset with the known columns, in our types."""
    import pyarrow.csv
    import pyarrow.dataset as ds
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    if kind == "csv":
        types = {name: type_ for name, type_ in _TYPES.items() if name != _LANDMARKS}
        form: Any = ds.CsvFileFormat(convert_options=pyarrow.csv.ConvertOptions(column_types=types))
    else:
        form = ds.ParquetFileFormat()
    files = PyFileSystem(FSSpecHandler(location.fs))
    # Fails at once if the file does not exist.
    location.fs.info(location.path)
    schema = _our_schema(form.inspect(location.path, files), location.uri)
    return ds.FileSystemDataset.from_paths([location.path], schema=schema, format=form, filesystem=files)


def _our_schema(found: pa.Schema, uri: str) -> pa.Schema:
    """Return the schema of the known columns, in our types.

    Raises:
        ConfigError: a column is missing or cannot be converted to our type.
    """
    names = set(found.names)
    missing = [name for name in ("video", *_CORNERS) if name not in names]
    if missing:
        raise ConfigError(f"detect.boxes: {uri}: has no column {missing[0]}; its columns are {_listed(found.names)}")
    if not names & set(_TIMES):
        raise ConfigError(f"detect.boxes: {uri}: has neither frame_index nor pts_us; add one of them")
    for name in _TYPES:
        nothing_given = name in ("score", _LANDMARKS) and name in names and pa.types.is_null(found.field(name).type)
        if name in names and not nothing_given and not _fits(found.field(name).type, _TYPES[name]):
            raise ConfigError(
                f"detect.boxes: {uri}: column {name} is {found.field(name).type}, not {_TYPES[name]} or similar"
            )
    return pa.schema([(name, type_) for name, type_ in _TYPES.items() if name in names])


def _fits(found: pa.DataType, ours: pa.DataType) -> bool:
    types = pa.types
    if types.is_string(ours):
        value = found.value_type if types.is_dictionary(found) else found
        return bool(types.is_string(value) or types.is_large_string(value))
    if types.is_list(ours):
        is_list = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
        return bool(is_list and types.is_floating(found.value_type))
    # Unsigned 64-bit numbers may not fit in int64.
    is_whole = types.is_integer(found) and not types.is_uint64(found)
    return bool(is_whole or (types.is_floating(ours) and types.is_floating(found)))


def names_of(video: Video) -> list[str]:
    """Return the values of column `video` that refer to a video: its id, its URI, then the last parts of its path."""
    whole = video.uri if video.member is None else f"{video.uri}#{video.member}"
    parts = (video.member or video.uri.partition("://")[2] or video.uri).split("/")
    ends = ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    if whole.startswith("file://"):
        ends.append(whole.removeprefix("file://"))
    return list(dict.fromkeys([video.video_id, whole, *filter(None, ends)]))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
