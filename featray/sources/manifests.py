"""Sources. Read CSV and JSONL manifests. An unusable row becomes an entry with a problem, and reading continues.

A manifest is untrusted: whatever it contains, a row takes at most `MAX_ROW_CHARS` in memory.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from featray.errors import ErrorCode, columns_shown, shown
from featray.redaction import readable_name, redact_links
from featray.sources.entry import Entry

URI_COLUMNS: Final = ("uri", "url", "path", "file", "video_uri", "video_path")
BYTES_COLUMNS: Final = ("bytes", "video", "content", "data", "mp4")
"""Column names to look for, in order, if `input.column` does not name one."""

MAX_ROW_CHARS: Final = 1 << 20
MAX_URI_CHARS: Final = 8192
"""Length limit of a URI: an S3 key has at most 1024 bytes, a signature about 2000."""

_MAX_SKIPPED_CHARS: Final = 64 << 20
"""Limit of the search for the end of a line that is too long. If the end is not found, reading stops."""

_MAX_DEPTH: Final = 32
_DELIMITERS: Final = {".csv": ",;\t|", ".tsv": "\t"}
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class _BadRow(ValueError):
    """A row that cannot be read; the message names the row and the reason."""


def read_csv(file: IO[bytes], kind: str, column: str | None) -> Iterator[Entry]:
    """Yield an entry for each row of a CSV or TSV file.

    Args:
        file: the bytes: UTF-8, or UTF-16 with a byte order mark.
        kind: `.csv`, whose delimiter is detected from the first line, or `.tsv`.
        column: the column that names the videos; None looks for the usual names.
    """
    with _Lines(file) as lines:
        try:
            first = next(lines, "")
        except _BadRow as error:
            yield bad_row(f"{error}; no row can be read without the first line")
            return
        names, delimiter = _header(first, _DELIMITERS[kind], column)
        chosen = column or choose_column(names)
        if chosen is None or chosen not in names:
            yield no_column(names)
            return
        for row in _each(csv.reader(lines, delimiter=delimiter), lines.begin_row):
            if isinstance(row, Entry):
                yield row
            elif any(row[len(names) :]):
                text = f"{lines.name} has {len(row)} cells, and the first line {len(names)}"
                yield bad_row(f"{text}; put cells that contain {shown(repr(delimiter), 8)} in double quotes")
            elif row:
                row += [None] * (len(names) - len(row))
                yield named(dict(zip(names, row, strict=False)), chosen, lines.name)


def read_jsonl(file: IO[bytes], column: str | None) -> Iterator[Entry]:
    """Yield an entry for each line of a JSONL file, like `read_csv`."""
    with _Lines(file) as lines:
        for line in _each(lines, lines.begin_row):
            if isinstance(line, Entry):
                yield line
            elif line.strip():
                yield _of_json(line, column, lines.name)


def named(row: dict[str, Any], column: str, name: str) -> Entry:
    """Return the entry of a row that names its video, with the other columns as `extra`.

    Args:
        row: values by column.
        column: the column with the URI.
        name: the row's name in messages, such as `line 3`.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        return bad_row(f"{name} has no URI in column {shown(column, 40)}")
    if len(value) > MAX_URI_CHARS:
        return bad_row(f"{name} has a URI of {len(value)} characters; the limit is {MAX_URI_CHARS}")
    uri = value.strip() if "://" in value else value  # spaces may be part of a file name
    try:
        return Entry(uri=uri, extra=_plain({k: v for k, v in row.items() if k != column}, _MAX_DEPTH))
    except _BadRow as error:
        return bad_row(f"{name} {error}")


def held(row: dict[str, Any] | str, name: str, place: dict[str, Any]) -> Entry:
    """Return the entry of a row that contains its video.

    Args:
        row: the other columns, or a text that says what is wrong with them.
        name: the row's name in messages, and the video's name inside the file.
        place: as in `Entry.place`.
    """
    if isinstance(row, str):
        return bad_row(f"{name} {row}")
    try:
        return Entry(name, place=place, extra=_plain(row, _MAX_DEPTH))
    except _BadRow as error:
        return bad_row(f"{name} {error}")


def bad_row(text: str) -> Entry:
    """Return the entry of a row that cannot be used."""
    return Entry(problem=(ErrorCode.BAD_MANIFEST_ROW, readable_name(text)))


def no_column(names: list[str], what: str = "URIs") -> Entry:
    """Return the entry of a manifest without a column of videos."""
    return Entry(problem=(ErrorCode.BAD_MANIFEST_ROW, readable_name(_no_column(names, what))))


def _no_column(names: list[str], what: str = "URIs") -> str:
    return f"no column of {what}; name it as input.column; it has: {columns_shown(names)}"


def choose_column(names: list[str]) -> str | None:
    """Return the first of the usual names of a column of URIs."""
    return next((name for name in URI_COLUMNS if name in names), None)


class _Lines:
    """Iterates over the lines of a text file, with their line ends; continues after a line that raises."""

    def __init__(self, file: IO[bytes]) -> None:
        head = file.read(4)
        file.seek(0)
        encoding = next((name for mark, name in _BOMS if head.startswith(mark)), "utf-8")
        errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
        self._text = io.TextIOWrapper(file, encoding, errors=errors, newline="")
        self._is_over = False
        self._row_chars = 0
        self._number = 0
        self._row_begin = 1

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()  # and the file

    def __iter__(self) -> Iterator[str]:
        return self

    @property
    def name(self) -> str:
        """Return the row's name for messages."""
        return f"line {self._row_begin}"

    def begin_row(self) -> None:
        """Start a new row: a CSV row may have several lines."""
        self._row_chars, self._row_begin = 0, self._number + 1

    def __next__(self) -> str:
        line = "" if self._is_over else self._text.readline(MAX_ROW_CHARS)
        if not line:
            raise StopIteration
        self._number += 1
        self._row_chars += len(line)
        if len(line) >= MAX_ROW_CHARS and not _is_whole(line):
            self._skip_line()
        if self._row_chars > MAX_ROW_CHARS:
            raise _BadRow(f"{self.name} belongs to a row of more than {MAX_ROW_CHARS} characters")
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError:
                raise _BadRow(f"line {self._number} is not UTF-8; save the file as UTF-8") from None
        return line

    def _skip_line(self) -> None:
        skipped = 0
        while (rest := self._text.readline(MAX_ROW_CHARS)) and not _is_whole(rest):
            skipped += len(rest)
            if skipped > _MAX_SKIPPED_CHARS:
                self._is_over = True
                raise _BadRow(f"line {self._number} has more than {skipped} characters; reading stops there")
        raise _BadRow(f"line {self._number} has more than {MAX_ROW_CHARS} characters")


def _is_whole(line: str) -> bool:
    return line.endswith(("\n", "\r"))


def _each(rows: Iterator[Any], begin_row: Callable[[], None]) -> Iterator[Any]:
    """Yield rows, and an entry for each row that cannot be read."""
    while True:
        begin_row()
        try:
            yield next(rows)
        except StopIteration:
            return
        except (_BadRow, csv.Error) as error:
            yield bad_row(str(error))


def _header(line: str, delimiters: str, column: str | None) -> tuple[list[str], str]:
    """Return the column names and the delimiter, choosing the delimiter that yields a column of videos."""
    if "\0" in line:
        line = ""  # UTF-16 without a byte order mark, or not text
    for delimiter in delimiters:
        try:
            names = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        if (column or choose_column(names)) in names:
            return names, delimiter
    return [name for name in line.strip().split(delimiters[0]) if name], delimiters[0]


def _of_json(line: str, column: str | None, name: str) -> Entry:
    try:
        row = json.loads(line)
    except RecursionError:
        return bad_row(f"{name} is nested too deeply")
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return bad_row(f"{name} is not a JSON object")
    chosen = column or choose_column(list(row))
    if chosen is None or chosen not in row:
        return bad_row(f"{name} has {_no_column(list(row))}")
    return named(row, chosen, name)


def _plain(value: Any, depth: int) -> Any:
    """Convert a value to plain JSON data: bytes are dropped, infinities and NaN become null, other types become text.

    Signatures and credentials are removed from links, because tables must not contain them.
    """
    if depth < 0:
        raise _BadRow("is nested too deeply")
    if isinstance(value, dict):
        return {str(key): _plain(inner, depth - 1) for key, inner in value.items() if not isinstance(inner, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth - 1) for inner in value if not isinstance(inner, bytes)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str) and "://" in value:
        return redact_links(value)
    return value if value is None or isinstance(value, str | int) else str(value)
