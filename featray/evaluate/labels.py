"""Evaluate. Read labels from CSV or Parquet and check them: each error is one line that names the row and the fix."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featray.errors import UsageError, one_line
from featray.evaluate.columns import AFFECT, BOX, EMOTION, GAZE, GAZE_VECTOR, POSE, Columns, read_columns
from featray.evaluate.measures import Floats
from featray.evaluate.values import check_affect, check_angles, check_units, read_emotions
from featray.store.location import locate
from featray.store.storage import read_bytes

_DELIMITERS: Final = ",;\t|"
_MOST_BYTES: Final = 512 << 20
"""The largest published sets of labels have a million rows. Python needs ten times as much for text."""
_BATCH_ROWS: Final = 8192
_NULLS: Final = ["", "nan", "NaN", "NAN", "NA", "N/A", "null", "NULL", "None"]


@dataclass(frozen=True)
class LabelSettings:
    """Settings for interpreting labels.

    Attributes:
        au_threshold: intensity from which a unit counts as present; None if labels are 0 and 1.
        emotions: emotion name by number, for files with numbers.
    """

    au_threshold: float | None = None
    emotions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """Human labels, one row per face; all arrays are `[n]`.

    Attributes:
        where: the file.
        columns: its columns.
        videos: names of videos; all None if rows are identified by pictures only.
        moments: times in µs, positions (both int64), or names of pictures (objects).
        boxes: float64 `[n, 4]` xyxy px or `[n, 2]` points, NaN without a value; None without such columns.
        targets: float64 by featray's name: action units 0 or 1, or intensities (see `intensities`); `emotion` as index
            of the seven, 7 for one that featray does not know; angles in radians. NaN without a label.
        intensities: whether action units are intensities from 0 to 5, present from `au_threshold` on.
        au_threshold: that threshold; None if labels are 0 and 1.
        labels: other columns, as text or None.
        warnings: suspicious but valid values, one line each.
    """

    where: str
    columns: Columns
    videos: NDArray[np.object_]
    moments: NDArray[Any]
    boxes: Floats | None
    targets: dict[str, Floats]
    intensities: bool
    au_threshold: float | None
    labels: dict[str, NDArray[np.object_]]
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.videos)

    def text(self, column: str, option: str) -> NDArray[np.object_]:
        """Return a label column.

        Raises:
            UsageError: there is no such column.
        """
        if column == self.columns.video:
            return self.videos
        if column not in self.labels:
            known = ", ".join(self.labels) or "none"
            raise UsageError(f"{option} {column}: no such column in {self.where}; its label columns: {known}")
        return self.labels[column]


def read_labels(uri: str, settings: LabelSettings, storage_options: dict[str, Any] | None = None) -> Labels:
    """Read a file of labels.

    Args:
        uri: a `.parquet`, or a `.csv` or `.tsv` delimited by `,`, `;`, tab or `|`; a local path or any fsspec URI.
        settings: how to interpret it.
        storage_options: options for fsspec.

    Raises:
        UsageError: its columns or values are invalid.
        StorageError: it cannot be read.
    """
    data = read_bytes(location := locate(uri, storage_options))
    where = location.uri.rsplit("/", 1)[-1]
    table = _parquet(data, where) if data[:4] == b"PAR1" else _csv(data, where)
    if not table.num_rows:
        raise UsageError(f"{where}: has no rows")
    return understand(table, where, settings)


def understand(table: pa.Table, where: str, settings: LabelSettings) -> Labels:
    """Return the labels in a table whose columns are named as in `columns.py`; raises as `read_labels`."""
    columns = read_columns(table.column_names, where)
    warnings = [f"{name}: featray does not estimate this unit; left out" for name in columns.unknown_units]
    read = _Reader(table, where)
    targets: dict[str, Floats] = {ours: read.numbers(name) for ours, name in columns.targets.items() if ours != EMOTION}
    intensities = check_units(columns, targets, settings.au_threshold, where)
    for name in AFFECT:
        if name in targets:
            check_affect(columns.targets[name], targets[name], where)
    for group in (GAZE, POSE):
        warnings += check_angles(columns, {n: targets[n] for n in group if n in targets}, where)
    for name in (*GAZE, *POSE):
        if name in columns.degrees:
            targets[name] = np.radians(targets[name])
    if GAZE_VECTOR[0] in targets:
        lengths = np.linalg.norm(np.stack([targets[name] for name in GAZE_VECTOR]), axis=0)
        if (bad := np.flatnonzero(lengths == 0)).size:
            raise UsageError(f"{where}: row {bad[0] + 1}: the gaze vector is 0, 0, 0; leave it empty if unknown")
    if EMOTION in columns.targets:
        targets[EMOTION] = read_emotions(read.text(columns.targets[EMOTION]), settings.emotions, where)
    if not any(np.isfinite(values).any() for values in targets.values()):
        raise UsageError(f"{where}: {', '.join(columns.targets.values())}: no row has a value; fill at least one")
    labels = Labels(
        where=where,
        columns=columns,
        videos=_names(read, columns.video, where, table.num_rows),
        moments=_moments(read, columns, where),
        boxes=_places(read, columns, where),
        targets=targets,
        intensities=intensities,
        au_threshold=settings.au_threshold if intensities else None,
        labels={name: read.text(name) for name in columns.labels},
        warnings=warnings,
    )
    _refuse_twice(labels)
    return labels


def _parquet(data: bytes, where: str) -> pa.Table:
    """Return the rows; a few kilobytes can unfold to any number of them, so they are read in batches.

    Texts are read as dictionaries, and measured before they are unfolded.
    """
    batches: list[pa.RecordBatch] = []
    try:
        schema = pq.read_schema(io.BytesIO(data)).remove_metadata()
        if nested := [field for field in schema if pa.types.is_nested(field.type)]:
            raise UsageError(f"{where}: {nested[0].name}: is {nested[0].type}, but must be text or numbers")
        texts = [field.name for field in schema if _is_text(field.type)]
        file = pq.ParquetFile(io.BytesIO(data), read_dictionary=texts)
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        _check_size(sum(group.total_byte_size for group in groups), where)
        size_bytes = 0
        for batch in file.iter_batches(_BATCH_ROWS):
            size_bytes += sum(map(_unfolded_bytes, batch.columns))
            _check_size(size_bytes, where)
            batches.append(batch.cast(schema))
        return pa.Table.from_batches(batches, schema)
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise UsageError(f"{where}: cannot be read as Parquet: {one_line(error)}") from None


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
    )


def _check_size(size_bytes: int, where: str) -> None:
    if size_bytes > _MOST_BYTES:
        raise UsageError(f"{where}: has more than {_MOST_BYTES >> 20:,} MiB of values; keep only columns of labels")


def _unfolded_bytes(column: pa.Array) -> int:
    """Return the size that a column has when each row holds its own text."""
    if not (pa.types.is_dictionary(column.type) and _is_text(column.type.value_type)):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary).cast(pa.int64()), column.indices)
    return int(pc.sum(lengths).as_py() or 0) + int(column.indices.nbytes)


def _csv(data: bytes, where: str) -> pa.Table:
    """Return all columns as text, since a subject 001 or a video 0012 is not a number."""
    encoding = "utf16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf8"
    try:
        text = data[: 1 << 20].decode("utf-16" if encoding == "utf16" else "utf-8-sig", errors="replace")
        first = next(csv.reader([text.splitlines()[0]])) if text.strip() else []
        delimiter = max(_DELIMITERS, key=text.splitlines()[0].count) if first else ","
        names = (
            [name.strip() for name in next(csv.reader([text.splitlines()[0]], delimiter=delimiter))] if first else []
        )
        if not names:
            raise UsageError(f"{where}: is empty; its first line must name the columns")
        return pa_csv.read_csv(
            io.BytesIO(data),
            pa_csv.ReadOptions(column_names=names, skip_rows=1, encoding=encoding),
            pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=_NULLS, strings_can_be_null=True
            ),
        )
    except (pa.ArrowException, UnicodeError, csv.Error) as error:
        raise UsageError(f"{where}: cannot be read as CSV: {one_line(error)}") from None


class _Reader:
    """Columns of a table as arrays."""

    def __init__(self, table: pa.Table, where: str) -> None:
        self._table, self._where = table, where

    def numbers(self, name: str) -> Floats:
        """Return a column as float64, NaN without a value."""
        column = self._column(name)
        if pa.types.is_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        try:
            found = pc.cast(column, pa.float64())
        except pa.ArrowException:
            raise UsageError(self._no_number(name, column)) from None
        values: Floats = found.to_numpy(zero_copy_only=False).astype(np.float64)
        if (bad := np.flatnonzero(np.isinf(values))).size:
            raise UsageError(f"{self._where}: row {bad[0] + 1}: {name} is infinite")
        return values

    def text(self, name: str) -> NDArray[np.object_]:
        """Return a column as text, None without a value."""
        column = self._column(name)
        if pa.types.is_floating(column.type):  # pandas writes 3 as 3.0 if the column has missing values
            values = column.to_numpy(zero_copy_only=False)
            found = [
                None if np.isnan(value) else f"{value:.0f}" if value.is_integer() else str(value) for value in values
            ]
            return np.asarray(found, object)
        try:
            column = pc.cast(column, pa.string())
        except pa.ArrowException:
            raise UsageError(f"{self._where}: {name}: is {column.type}, but must be text or numbers") from None
        return np.asarray(column.to_pylist(), object)

    def _column(self, name: str) -> Any:
        column = self._table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # a column without rows
            column = pa.array([], column.type)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            column.validate(full=True)
        except pa.ArrowException:
            raise UsageError(f"{self._where}: {name}: is damaged, or has text that is not UTF-8") from None
        return column

    def _no_number(self, name: str, column: Any) -> str:
        for number, value in enumerate(column.to_pylist() if pa.types.is_string(column.type) else []):
            try:
                float("0" if value is None else value)
            except ValueError:
                return f"{self._where}: row {number + 1}: {name} is {value[:40]!r}, not a number"
        return f"{self._where}: {name}: is {column.type}, but must be numbers"


def _names(read: _Reader, column: str | None, where: str, rows: int) -> NDArray[np.object_]:
    if column is None:
        return np.full(rows, None, object)
    names = read.text(column)
    if (bad := np.flatnonzero([name is None or not name.strip() for name in names])).size:
        raise UsageError(f"{where}: row {bad[0] + 1}: {column} is empty")
    return names


def _moments(read: _Reader, columns: Columns, where: str) -> NDArray[Any]:
    if columns.kind == "picture":
        return _names(read, columns.moment, where, 0)
    values = read.numbers(columns.moment)
    if (bad := np.flatnonzero(np.isnan(values))).size:
        raise UsageError(f"{where}: row {bad[0] + 1}: {columns.moment} is empty")
    if columns.kind == "frame" and (bad := np.flatnonzero((values != np.floor(values)) | (values < 0))).size:
        raise UsageError(
            f"{where}: row {bad[0] + 1}: {columns.moment} is {values[bad[0]]:g}; frames are counted from 0"
        )
    if (np.abs(values) * columns.us_per_unit >= 2.0**53).any():
        raise UsageError(
            f"{where}: {columns.moment}: values up to {np.abs(values).max():g} are too large for times or frames"
        )
    return np.rint(values * columns.us_per_unit).astype(np.int64)


def _places(read: _Reader, columns: Columns, where: str) -> Floats | None:
    names = columns.box or columns.point
    if not names:
        return None
    places = np.stack([read.numbers(name) for name in names], axis=1)
    missing = np.isnan(places)
    if (bad := np.flatnonzero(missing.any(1) & ~missing.all(1))).size:
        raise UsageError(f"{where}: row {bad[0] + 1}: {', '.join(names)}: some are empty; fill all or none")
    if names == BOX and (bad := np.flatnonzero((places[:, 2:] <= places[:, :2]).any(1))).size:
        raise UsageError(f"{where}: row {bad[0] + 1}: the box ends before it begins; x2 and y2 are its other corner")
    return places


def _refuse_twice(labels: Labels) -> None:
    """Refuse two labels of the same face, since it is unclear which one counts."""
    places = labels.boxes if labels.boxes is not None else np.empty((len(labels), 0))
    seen: dict[Any, int] = {}
    for number, key in enumerate(
        zip(labels.videos, labels.moments, map(tuple, np.nan_to_num(places, nan=-1)), strict=True)
    ):
        first = seen.setdefault(key, number)
        if first != number:
            what = f"{labels.columns.moment} {key[1]}" + (f" of {key[0]}" if key[0] else "")
            choose = (
                "" if labels.boxes is not None else "; several faces in a frame need box_x1 ... or point_x, point_y"
            )
            raise UsageError(f"{labels.where}: rows {first + 1} and {number + 1} both label {what}{choose}")
