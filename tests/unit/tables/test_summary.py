"""Columns of `summary` that come from a manifest: anyone may have chosen their names."""

import json

import duckdb
import pytest

from featray.schema import TABLES
from featray.tables.query import table_view
from featray.tables.summary import MOST_KEYS, spread_summary, summary_view


@pytest.fixture
def shown():
    """Yield a function that returns the columns, with values, that a video's text in `extra` adds to the view."""
    with duckdb.connect() as connection:
        for table in TABLES:
            connection.execute(f"CREATE TABLE {table} AS {table_view(table, '')}")
        connection.execute("ALTER TABLE tracks ADD COLUMN person_id VARCHAR")

        def show(extra):
            connection.execute("DELETE FROM videos")
            connection.execute(
                "INSERT INTO videos (dataset, release, video_id, extra) VALUES ('d', 'r', 'v', ?)", [extra]
            )
            connection.execute(f"CREATE OR REPLACE VIEW summary AS {summary_view()}")
            usual = set(connection.view("summary").columns)
            spread_summary(connection)
            (row,) = connection.view("summary").to_arrow_table().to_pylist()
            return {name: value for name, value in row.items() if name not in usual}

        yield show


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"group": "a", "GROUP": "b", "faces": 3}, {"group": "a", "extra_GROUP": "b", "extra_faces": "3"}),
        ({"x'; DROP TABLE videos; --": 1, 'q"z': 2}, {"x'; DROP TABLE videos; --": "1", 'q"z': "2"}),
        ({"a/b~c": 1, "": 2}, {"a/b~c": "1"}),
        ({"a\0b": 2, "kept": 3}, {"kept": "3"}),
        ({"\ud800": 1, "kept": 3}, {"kept": None}),  # valid JSON for Python, but not for DuckDB
        (["no object"], {}),
    ],
    ids=["taken", "sql", "pointer", "zero", "surrogate", "list"],
)
def test_keys_become_columns(shown, extra, expected):
    assert shown(json.dumps(extra)) == expected


def test_many_keys_are_cut_and_said(shown, caplog):
    assert len(shown(json.dumps({f"k{i}": i for i in range(MOST_KEYS + 100)}))) == MOST_KEYS
    assert f"have {MOST_KEYS + 100} columns; only the first {MOST_KEYS} are shown" in caplog.text


def test_what_is_no_json_brings_nothing(shown):
    assert shown("{") == {} and shown("[" * 100_000) == {}
