"""Command line. Print query results and the data dictionary."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain, islice
from typing import Any

import pyarrow as pa
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from featray.cli.console import open_console
from featray.errors import UsageError, counted, one_line, printable
from featray.schema import ALL_TABLES, TABLE_MEANINGS
from featray.tables.database import read_tuples
from featray.tables.query import VIEWS

_ROWS_SHOWN = 1000
"""Maximum rows of a table on a terminal; a pipe or file gets all rows."""

_ROWS_MEASURED = 1000
"""Rows of a table in a pipe that decide the width of its columns. A later, longer cell shifts its row."""


def print_result(result: pa.RecordBatchReader, style: str, *, safe_csv: bool = False) -> None:
    """Print a result as `table`, `csv` or `json` (one array of objects).

    Args:
        result: result of the query.
        style: `table`, `csv` or `json`.
        safe_csv: in CSV, put `'` before texts that spreadsheets would interpret as formulas.

    Raises:
        UsageError: the query fails at a later row.
    """
    names, rows = unique_names(result.schema.names), _rows(result)
    if style == "csv":
        _print_csv(names, rows, safe=safe_csv)
    elif style == "json":
        found = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
        print(json.dumps(found, indent=2))
    elif sys.stdout.isatty():
        _print_table(names, list(islice(rows, _ROWS_SHOWN + 1)))
    else:
        _print_lines(names, rows)


def _print_csv(names: list[str], rows: Iterator[tuple[Any, ...]], *, safe: bool) -> None:
    from featray.views.export import without_formula  # loads pyarrow's Parquet, which other styles do not need

    terminal = sys.stdout.isatty()

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = without_formula(value) if safe else value
        return printable(value) if terminal else value

    writer = csv.writer(sys.stdout, lineterminator="\n")
    for row in chain([names], rows):
        writer.writerow([cell(_plain(value)) for value in row])


def unique_names(names: Sequence[str]) -> list[str]:
    """Number columns with equal names as DuckDB does when it creates a table; case is ignored.

    >>> unique_names(["pts_us", "pts_us", "status"])
    ['pts_us', 'pts_us_1', 'status']
    """
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        number, chosen = seen[name.lower()], name
        if number:
            chosen = f"{name}_{number}"
            while seen[chosen.lower()]:
                chosen += "_1"
        seen[name.lower()] += 1
        if chosen != name:
            seen[chosen.lower()] += 1
        unique.append(chosen)
    return unique


def _rows(result: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    """Yield the rows as tuples: dictionaries would keep only one of several columns with equal names."""
    while True:
        try:
            batch = result.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowInvalid) as error:  # Arrow's form of a DuckDB error
            raise UsageError(f"query: {one_line(error)}") from None
        yield from read_tuples(batch)


def print_schema(table: str | None) -> None:
    """Print name, type, unit, range and meaning of every column.

    Raises:
        UsageError: no such table.
    """
    _check_table(table)
    console = open_console()
    for name in [table] if table else list(ALL_TABLES):
        console.print(Text.assemble((name, "bold"), f": {TABLE_MEANINGS[name]}"))
        shown = Table("column", "type", "unit", "range", "meaning", box=None, pad_edge=False)
        for column in ALL_TABLES[name]:
            shown.add_row(column.name, _type_name(column.type), column.unit, column.range, column.meaning)
        console.print(shown)
        console.print()


def schema_json(table: str | None) -> str:
    """Return the data dictionary as JSON: a list of tables, each with its columns.

    Raises:
        UsageError: no such table.
    """
    _check_table(table)
    found = [
        {
            "table": name,
            "meaning": TABLE_MEANINGS[name],
            "columns": [
                {
                    "name": column.name,
                    "type": _type_name(column.type),
                    "unit": column.unit,
                    "range": column.range,
                    "meaning": column.meaning,
                }
                for column in ALL_TABLES[name]
            ],
        }
        for name in ([table] if table else ALL_TABLES)
    ]
    return json.dumps(found, indent=2)


def schema_markdown(table: str | None) -> str:
    """Return the data dictionary as Markdown, of one table or of all.

    Raises:
        UsageError: no such table.
    """
    _check_table(table)
    parts = [_MARKDOWN_HEAD] if table is None else []
    for name in [table] if table else list(ALL_TABLES):
        parts.append(f"## {name}\n\n{_sentence(TABLE_MEANINGS[name])}\n")
        parts.append("| column | type | unit | range | meaning |\n| --- | --- | --- | --- | --- |")
        for column in ALL_TABLES[name]:
            cells = (f"`{column.name}`", _type_name(column.type), column.unit, column.range, column.meaning)
            parts.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


_MARKDOWN_HEAD = """# Tables

<!-- Written by docs/generate.py from the code; `make docs` renews it. -->

Type, unit, range and meaning of every column; `featray schema TABLE` prints the same. Read
[What the numbers mean](../explanation/numbers.md) before you draw conclusions from a column.
"""


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _check_table(table: str | None) -> None:
    if table is not None and table not in ALL_TABLES:
        view = f'; for a view: `featray query OUT "DESCRIBE {table}"`' if table in ("summary", *VIEWS) else ""
        raise UsageError(f"schema {table}: no such table; choose one of {', '.join(ALL_TABLES)}{view}")


def _print_table(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    console = open_console()
    shown = Table(*map(_printable, names), box=None, pad_edge=False)
    # Keep line breaks: EXPLAIN draws a tree with them.
    cells = [["\n".join(map(_printable, _short(value).split("\n"))) for value in row] for row in rows[:_ROWS_SHOWN]]
    for row in _cut_places(names, cells, console.width):
        shown.add_row(*row)
    console.print(shown, no_wrap=True, crop=False, overflow="ignore")
    more = ", the first of more" if len(rows) > _ROWS_SHOWN else ""
    console.print(f"({counted(min(len(rows), _ROWS_SHOWN), 'row')}{more})", style="dim")


_LEAST_PLACE = 16


def _cut_places(names: list[str], rows: list[list[str]], width: int) -> list[list[str]]:
    """Return rows with URIs shortened at their beginning if the table is too wide: their ends distinguish them."""
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    places = [i for i in range(len(names)) if any("://" in row[i] for row in rows)]
    over = sum(widths) + 2 * (len(widths) - 1) - width
    if over <= 0 or not places:
        return rows
    most = [max(_LEAST_PLACE, widths[i] - -(-over // len(places))) for i in range(len(names))]
    return [
        [f"…{cell[1 - most[i] :]}" if i in places and len(cell) > most[i] else cell for i, cell in enumerate(row)]
        for row in rows
    ]


def _print_lines(names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """Print a table for a pipe or a file: every row on one line, with complete cells."""
    lines = ([_printable(_number(value)) for value in row] for row in rows)
    first = [list(map(_printable, names)), *islice(lines, _ROWS_MEASURED)]
    widths = [max(map(cell_len, column)) for column in zip(*first, strict=True)]
    count = 0
    for cells in chain(first, lines):
        padded = (set_cell_size(cell, max(width, cell_len(cell))) for cell, width in zip(cells, widths, strict=True))
        print("  ".join(padded).rstrip())
        count += 1
    print(f"({counted(count - 1, 'row')})")  # without the heading


def _printable(text: str) -> str:
    """Return text with unprintable characters, which could move a terminal's cursor, as Python escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(_short(v) for v in value[:3])}, ... {len(value)}]"
    return _number(value)


def _number(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(_plain(value))


def _plain(value: Any) -> Any:
    """Return a value in types of JSON and CSV, including within lists and structs."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Decimal):  # DuckDB's type of sums of integers
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, date | time | timedelta | bytes) else value


def _type_name(kind: Any) -> str:
    return str(kind).replace("<item: ", "<").replace("<element: ", "<").replace("[us, tz=UTC]", "(us, UTC)")
