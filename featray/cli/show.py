"""Command line. Printing query results and the data dictionary."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from featray.errors import ERROR_MEANINGS, UsageError
from featray.schema import TABLE_MEANINGS, TABLES

_ROWS_SHOWN = 1000
"""Of a table on the terminal; csv and json print all."""


def print_result(result: pa.RecordBatchReader, style: str) -> None:
    """Print a result as `table`, `csv` or `json` (one array of objects)."""
    rows = (row for batch in result for row in batch.to_pylist())
    if style == "csv":
        writer = csv.DictWriter(sys.stdout, result.schema.names)
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    elif style == "json":
        found = [{name: _plain(value) for name, value in row.items()} for row in rows]
        print(json.dumps(found, indent=2))
    else:
        _print_table(result.schema.names, list(islice(rows, _ROWS_SHOWN + 1)))


def print_schema(table: str | None) -> None:
    """Print name, type, unit, range and meaning of every column.

    Raises:
        UsageError: no such table.
    """
    _check_table(table)
    console = Console(soft_wrap=True)
    for name in [table] if table else list(TABLES):
        console.print(f"[bold]{name}[/bold]: {TABLE_MEANINGS[name]}")
        shown = Table("column", "type", "unit", "range", "meaning", box=None, pad_edge=False)
        for column in TABLES[name]:
            shown.add_row(column.name, _type_name(column.type), column.unit, column.range, column.meaning)
        console.print(shown)
        console.print()


def schema_markdown(table: str | None) -> str:
    """The data dictionary as a page of Markdown, of one table or of all.

    Raises:
        UsageError: no such table.
    """
    _check_table(table)
    parts = [_MARKDOWN_HEAD] if table is None else []
    for name in [table] if table else list(TABLES):
        parts.append(f"## {name}\n\n{_sentence(TABLE_MEANINGS[name])}\n")
        parts.append("| column | type | unit | range | meaning |\n| --- | --- | --- | --- | --- |")
        for column in TABLES[name]:
            cells = (f"`{column.name}`", _type_name(column.type), column.unit, column.range, column.meaning)
            parts.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |")
        parts.append("")
    if table is None:
        parts.append("## Error codes\n\n| `error_code` | meaning |\n| --- | --- |")
        parts += [f"| `{code}` | {meaning} |" for code, meaning in ERROR_MEANINGS.items()]
        parts.append("")
    return "\n".join(parts)


_MARKDOWN_HEAD = """# The tables, column by column

<!-- Written by `featray schema --format markdown`; a test holds it to the schemas. -->

Every column's type, unit, range and meaning. What the numbers can bear is said in
[What the numbers mean](MEANING.md).
"""


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _check_table(table: str | None) -> None:
    if table is not None and table not in TABLES:
        raise UsageError(f"schema {table}: no such table; there are: {', '.join(TABLES)}")


def _print_table(names: list[str], rows: list[dict[str, Any]]) -> None:
    console = Console(soft_wrap=True)
    shown = Table(*names, box=None, pad_edge=False)
    for row in rows[:_ROWS_SHOWN]:
        shown.add_row(*(_short(value) for value in row.values()))
    console.print(shown, no_wrap=True, crop=False, overflow="ignore")
    more = ", the first of more" if len(rows) > _ROWS_SHOWN else ""
    console.print(f"({min(len(rows), _ROWS_SHOWN)} rows{more})", style="dim")


def _short(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(_short(v) for v in value[:3])}, ... {len(value)}]"
    return str(_plain(value))


def _plain(value: Any) -> Any:
    """A value as JSON and CSV know it, lists and structs included."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Decimal):  # what DuckDB sums integers to
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, date | time | timedelta | bytes) else value


def _type_name(kind: Any) -> str:
    return str(kind).replace("<item: ", "<").replace("<element: ", "<").replace("[us, tz=UTC]", "(us, UTC)")
