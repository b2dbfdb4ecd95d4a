"""Hostile text of an output from an untrusted source: in SQL, YAML, on a terminal, in a sheet, on a page."""

import csv
import html
import json
import re
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from featray.tables import database as database_module
from featray.tables.database import open_database
from featray.tables.layout import open_output
from featray.tables.query import connect, run_safe_sql, run_sql
from tests.fixtures import s3
from tests.fixtures.handmade import RELEASE, write_output
from tests.fixtures.hostile import House, featray

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


LONG = pytest.mark.long
"""Mark of values that are refused by the same parser as the others."""


@pytest.fixture
def house(published, tmp_path) -> House:
    shutil.copytree(published, tmp_path / "out")
    commits = [json.loads(path.read_bytes()) for path in (tmp_path / "out").glob("_featray/commits/*/*/*.json")]
    whole = [video["video_id"] for commit in commits for video in commit["videos"] if video["status"] == "ok"]
    return House(tmp_path, tmp_path / "out", Path(), whole[0])


def put(house: House, table: str, column: str, value: str) -> None:
    """Write a value into every row of a table, into a new column if there is none of that name."""

    def edit(rows: pa.Table) -> pa.Table:
        values = pa.array([value] * rows.num_rows, pa.string())
        if column not in rows.column_names:
            return rows.append_column(column, values)
        return rows.set_column(rows.column_names.index(column), column, values)

    house.edit_table(table, edit, every=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(f"{BOMB}input: {{uris: [a], column: *a11}}\noutput: {{tables: [faces]}}", id="bomb"),
        pytest.param(f"{BOMB}input: {{uris: *a11, column: b}}\noutput: {{tables: *a11}}", id="larger bomb", marks=LONG),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("input: {uris: [a]}\noutput: {tables: [../../x]}", id="no table", marks=LONG),
        pytest.param("!!python/object/apply:os.system ['touch pwned']", id="code"),
        pytest.param("", id="empty", marks=LONG),
        pytest.param("input: {uris: [a]}\n" + "- x\n" * 10_000_000, id="long", marks=LONG),
    ],
)
def test_a_config_that_is_none(house, config):
    put(house, "runs", "config", config)
    out, video = house.out, house.video_id
    assert featray("export", out, "--video", video, "--format", "csv", "--out", house.root / "a.csv").exit_code == 0
    done = featray("verify", out)
    assert done.exit_code == 1 and "is not a valid config" in done.output
    assert featray("erase", out, "--video", video).exit_code == 0
    assert not (house.root / "pwned").exists()


ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe"


def test_kinds_of_events_that_are_none(house, tmp_path):
    """They appear in strips of the report, and in a clip's time line."""

    def edit(rows: pa.Table) -> pa.Table:
        kinds = [(None, "a\nb", "\x1b[31m", "<script>alert(1)")[i % 4] for i in range(rows.num_rows)]
        return rows.set_column(rows.column_names.index("kind"), "kind", pa.array(kinds, pa.string()))

    house.edit_table("events", edit)
    report = featray("report", house.out, "--out", tmp_path / "a.html", "--no-thumbnails")
    assert report.exit_code == 0, report.output
    page = (tmp_path / "a.html").read_text()
    assert "<script>alert" not in page and "\x1b" not in page
    shown = featray("preview", house.out, "--video", "anna.mp4", "--to", "2s", "--out", tmp_path / "a.mp4")
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("extra", ['{"pts_us": [[]]}', '{"a":' * 100_000])
def test_columns_of_a_manifest_that_are_none(house, extra, tmp_path):
    put(house, "videos", "extra", extra)
    shown = featray("preview", house.out, "--video", "anna.mp4", "--frames", 1, "--out", tmp_path / "a.png")
    assert shown.exit_code == 0, shown.output


def test_a_file_with_another_type_changes_no_column(house):
    """Text that is a number is read as one. Other text is reported as an error of the table, not of the query."""
    sql = "SELECT DISTINCT typeof(face_index) AS kind FROM faces"
    put(house, "faces", "face_index", "0")
    assert json.loads(featray("query", house.out, sql, "--format", "json").stdout) == [{"kind": "INTEGER"}]
    put(house, "faces", "face_index", "x")
    done = featray("query", house.out, "SELECT sum(face_index) FROM faces")
    assert done.exit_code == 2 and "Conversion Error" in done.stderr
    done = featray("report", house.out, "--out", house.root / "a.html")
    assert done.exit_code == 1 and "run `featray verify`" in done.stderr
    assert "query:" not in done.stderr and "tables:" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("runs", "dataset", ["status"]),
        ("videos", "uri", ["export", "--video", "anna.mp4", "--format", "csv"]),
        ("frames", "release", ["evaluate", "--labels", "labels.csv", "--resamples", 0]),
    ],
)
def test_a_column_of_lists_is_the_tables_error_and_not_the_users(house, table, column, words, monkeypatch):
    monkeypatch.chdir(house.root)
    Path("labels.csv").write_text("video,frame_index,AU12\nanna.mp4,0,1\n")
    house.edit_table(table, lambda t: t.set_column(t.column_names.index(column), column, pa.array([[1]] * len(t))))
    done = featray(words[0], house.out, *words[1:])
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert "run `featray verify`" in done.stderr and "query:" not in done.stderr, done.stderr


def test_rows_that_are_there_twice_are_the_tables_error(house, monkeypatch):
    monkeypatch.chdir(house.root)
    Path("labels.csv").write_text("video,frame_index,AU12\nanna.mp4,0,1\nben.mp4,0,1\n")
    house.edit_table("frames", lambda rows: pa.concat_tables([rows, rows]), every=True)
    done = featray("evaluate", house.out, "--labels", "labels.csv", "--resamples", 0)
    assert done.exit_code == 1 and "has videos, frames or faces twice; run `featray verify`" in done.stderr


@pytest.mark.parametrize(
    ("table", "column"), [("errors", "run_id"), ("frames", "faces"), ("videos", "uri"), ("faces", "dataset")]
)
def test_a_column_of_nulls_is_verified(house, table, column):
    house.edit_table(
        table,
        lambda t: t.set_column(t.column_names.index(column), column, pa.nulls(len(t), t.schema.field(column).type)),
    )
    done = featray("verify", house.out, "--recompute", 3)
    assert done.exit_code == 1 and f"problem     {table}/" in done.stdout, done.output


def test_a_column_of_another_kind_is_text(house, tmp_path):
    """The columns belong to no table, and have types that no reader of rows expects."""
    odd = {
        "p\x1b[2J": pa.array([{"a\x1b[2J": ["\x1b[2J"]}]),
        "span": pa.array([2**62], pa.duration("us")),
        "late": pa.array([[2**62]], pa.list_(pa.timestamp("us", "UTC"))),
        "bytes": pa.array([b"\x1b\xff"]),
    }

    def edit(rows: pa.Table) -> pa.Table:
        for name, value in odd.items():
            rows = rows.append_column(name, pa.concat_arrays([value] * rows.num_rows))
        return rows

    for table in ("faces", "videos", "events", "runs"):
        house.edit_table(table, edit, every=True)
    out, video = house.out, house.video_id
    for words in (
        ["query", out, "SELECT * FROM events JOIN videos USING (video_id)"],
        ["query", out, "SELECT * FROM runs", "--format", "json"],
        ["export", out, "--events", "csv", "--out", tmp_path / "a.csv"],
        ["export", out, "--summary", "csv", "--out", tmp_path / "a.csv"],
        ["export", out, "--video", video, "--format", "fex", "--out", tmp_path / "a.csv"],
        ["preview", out, "--video", video, "--frames", "1", "--out", tmp_path / "a.png"],
        ["report", out, "--no-thumbnails", "--out", tmp_path / "a.html"],
    ):
        done = featray(*words)
        assert done.exit_code == 0, (words, done.output)


@pytest.mark.parametrize(("table", "column"), [("runs", "started_at"), ("errors", "at"), ("videos", "published_at")])
def test_a_time_beyond_all_years(house, table, column):
    def edit(rows: pa.Table) -> pa.Table:
        late = pa.array([1 << 62] * rows.num_rows, pa.timestamp("us", "UTC"))
        return rows.set_column(rows.column_names.index(column), rows.schema.field(column), late)

    house.edit_table(table, edit, every=True)
    done = featray("query", house.out, f"SELECT * FROM {table}")
    assert done.exit_code == 1 and "outside of the years 1 to 9999" in done.stderr
    done = featray("query", house.out, f'SELECT "{column}"::VARCHAR AS late FROM {table}')
    assert done.exit_code == 0, done.stderr
    assert featray("status", house.out).exit_code == (1 if table == "runs" else 0)
    assert featray("report", house.out, "--no-thumbnails", "--out", house.root / "a.html").exit_code in (0, 1)
    told = featray("verify", house.out).output
    assert f"{column} is " in told, told
    assert featray("erase", house.out, "--video", house.video_id).exit_code in (0, 1)


def test_no_command_reaches_the_terminal(house, small_network, tmp_path):
    put(house, "runs", "status", ESCAPE)
    put(house, "runs", "run_id", ESCAPE)
    put(house, "faces", "video_id", ESCAPE)
    put(house, "videos", "codec", ESCAPE)
    for words in (["status", house.out], ["verify", house.out], ["compact", house.out]):
        text = featray(*words).output
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}
    weights, hostile = load_file(small_network), tmp_path / "hostile.safetensors"
    with safe_open(small_network, "np") as opened:
        metadata = opened.metadata()
    save_file(weights, hostile, metadata | {"license": ESCAPE})
    done = featray("models", "inspect", hostile)
    assert done.exit_code == 0 and r" \x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe" in done.output


def test_a_login_in_a_damaged_value_is_not_printed(house):
    """Arrow and DuckDB repeat the value in their messages."""
    put(house, "frames", "repeats", "s3://k:hunter2@bucket/a.mp4?X-Amz-Signature=hunter2")
    for words in (["verify", house.out], ["compact", house.out]):
        done = featray(*words)
        assert done.exit_code and "hunter2" not in done.output, words
    erased = featray("erase", house.out, "--video", house.video_id, "--track", "0")
    assert erased.exit_code and "hunter2" not in erased.output


@pytest.mark.parametrize("table", ["faces", "frames", "videos", "events"])
@pytest.mark.parametrize("column", ["video_id", "uri"])
def test_a_row_without_its_video_blocks_nothing(house, table, column):
    if column == "uri" and table != "videos":
        return

    def edit(rows):
        texts = [None, *rows[column].to_pylist()[1:]]
        return rows.set_column(rows.column_names.index(column), column, pa.array(texts, pa.string()))

    house.edit_table(table, edit, every=True)
    featray("derive", house.out, "--set", "derive.baseline=p10")
    for words in (
        ["compact", house.out],
        ["erase", house.out, "--video", house.video_id, "--track", "0"],
        ["erase", house.out, "--video", "anna.mp4"],
        ["erase", house.out, "--video", house.video_id],
    ):
        done = featray(*words)
        assert done.exit_code in (0, 1, 2) and "Traceback" not in done.output, (words, done.output)


def test_a_column_twice_is_a_problem_and_no_traceback(house):
    house.edit_table("events", lambda rows: rows.append_column("kind", rows["kind"]))
    done = featray("verify", house.out)
    assert done.exit_code == 1 and "has the column kind twice" in done.output


def test_a_heading_calculates_nothing_and_reaches_no_terminal(house):
    put(house, "videos", "extra", json.dumps({"=cmd|x": "a", f"{ESCAPE}k": "b"}))
    path = house.root / "s.csv"
    done = featray("export", house.out, "--summary", "csv", "--out", path, "--safe-csv")
    assert done.exit_code == 0, done.output
    heading = next(csv.reader(path.open()))
    assert "'=cmd|x" in heading and not any(name.startswith("=") for name in heading)


def test_a_sheet_calculates_nothing(house):
    put(house, "faces", "run_id", "=HYPERLINK(1)")
    path = house.root / "a.csv"

    def cells(*words):
        done = featray("export", house.out, "--video", video, "--format", "csv", "--out", path, *words)
        assert done.exit_code == 0
        return list(csv.DictReader(path.open()))

    video = next(v["video_id"] for c in house.commits().values() for v in c["videos"] if v["faces"])
    plain, safe = cells(), cells("--safe-csv")
    assert {row["run_id"] for row in plain} == {"=HYPERLINK(1)"}
    assert {row["run_id"] for row in safe} == {"'=HYPERLINK(1)"}
    assert any(value.startswith("-") for row in safe for name, value in row.items() if name.startswith("pose"))
    assert [row | {"run_id": ""} for row in safe] == [row | {"run_id": ""} for row in plain]

    sql = """SELECT run_id AS "=1+1", -1 AS number, [run_id] AS list FROM faces LIMIT 1"""
    for words, mark in (((), ""), (("--safe-csv",), "'")):
        done = featray("query", house.out, sql, "--format", "csv", *words)
        assert done.stdout.splitlines() == [f"{mark}=1+1,number,list", f"{mark}=HYPERLINK(1),-1,['=HYPERLINK(1)']"]


def test_a_hidden_page_names_nobody(house, inputs, small_network):
    put(house, "videos", "patient", "Anna Schmidt")
    plain, hidden = house.root / "plain.html", house.root / "hidden.html"
    assert featray("report", house.out, "--out", plain, "--no-thumbnails").exit_code == 0
    assert featray("report", house.out, "--out", hidden, "--no-thumbnails", "--blur").exit_code == 0
    for word in ("Anna Schmidt", "patient", str(small_network), str(inputs), str(house.out), "anna.mp4"):
        assert word in plain.read_text(), word
        assert word not in hidden.read_text(), word


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{0}/victim.txt')",
        "SELECT * FROM '{0}/out/../victim.csv'",
        "SELECT * FROM glob('{0}/*')",
        "COPY (SELECT 1) TO '{0}/pwned.csv'",
        "COPY (SELECT 1) TO '{0}/out/pwned.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{0}/out/pwned.csv'",
        "SELECT 1; COPY (SELECT 1) TO '{0}/out/pwned.csv'",
        "ATTACH '{0}/out/pwned.db'",
        "EXPORT DATABASE '{0}/out/pwned'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "CALL pragma_version()",
    ],
)
def test_a_safe_query_only_selects_from_the_output(made, sql):
    (made / "victim.txt").write_text("secret")
    (made / "victim.csv").write_text("secret\n1\n")
    before = sorted(made.rglob("*"))
    done = featray("query", made / "out", sql.format(made), "--safe")
    assert done.exit_code == 2 and done.stderr.startswith("featray: query: ")
    assert "secret" not in done.stdout and sorted(made.rglob("*")) == before


def test_a_safe_query_selects(made):
    done = featray("query", made / "out", "SELECT count(*) AS n FROM features", "--safe", "--format", "json")
    assert json.loads(done.stdout)[0]["n"] > 0


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a folder with the hand-made output."""
    folder = tmp_path_factory.mktemp("made")
    write_output(folder / "out")
    return folder


@pytest.fixture(scope="module")
def bucket(made, tmp_path_factory):
    """Yield the same output in a bucket, beside an object of another owner; and the command's flags to reach it."""
    options = {"key": "test", "secret": "test"}
    with s3.server() as url:
        fs = fsspec.filesystem("s3", endpoint_url=url, **options)
        fs.mkdir("bucket")
        fs.put(str(made / "out"), "bucket/out", recursive=True)
        fs.put(str(next((made / "out" / "faces").rglob("*.parquet"))), "bucket/others.parquet")
        flags = [f"--storage-option=endpoint_url={url}", "--storage-option=key=test", "--storage-option=secret=test"]
        yield open_output("s3://bucket/out", {"endpoint_url": url, **options}), flags


def test_a_database_over_a_bucket_reads_nothing_else(bucket, made):
    output, flags = bucket
    connection = connect(output)
    assert run_sql(connection, "SELECT count(*) AS n FROM faces").read_all().to_pylist()[0]["n"] > 0
    for place in (
        "s3://bucket/others.parquet",
        "s3://bucket/out/../others.parquet",
        str(next(made.rglob("*.parquet"))),
    ):
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"SELECT * FROM read_parquet('{place}')")
    with pytest.raises(duckdb.PermissionException):
        connection.execute("COPY (SELECT 1) TO 's3://bucket/pwned.parquet' (FORMAT parquet)")
    with pytest.raises(duckdb.InvalidInputException):
        connection.execute("SET enable_external_access = true")
    assert featray("status", "s3://bucket/out", *flags).exit_code == 0
    done = featray("query", "s3://bucket/out", "SELECT count(*) FROM faces", "--safe", "--format", "csv", *flags)
    assert done.exit_code == 0
    done = featray("query", "s3://bucket/out", "FROM read_parquet('s3://bucket/others.parquet')", "--safe", *flags)
    assert done.exit_code == 2
    assert "cannot be read" not in featray("verify", "s3://bucket/out", *flags).output


def test_records_in_a_bucket_name_nothing_above_it(bucket):
    output, flags = bucket
    fs, folder = output.root.fs, f"bucket/out/_featray/commits/one/{RELEASE}"
    file = {"table": "faces", "path": "../others.parquet", "rows": 1, "size_bytes": 1, "sha256": "0" * 64}
    nothing = {"name": "old", "run_id": "r", "published_at_us": 1, "files": []}
    fs.pipe(f"{folder}/old.json", json.dumps(nothing | {"files": [file]}).encode())
    fs.pipe(f"{folder}/new.json", json.dumps(nothing | {"name": "new", "rewrites": [nothing]}).encode())
    try:
        done = featray("publish", "s3://bucket/out", *flags)
        assert done.exit_code == 1 and f"{folder}/old.json: damaged commit record" in done.stderr
        assert fs.exists("bucket/others.parquet")
    finally:
        fs.rm([f"{folder}/old.json", f"{folder}/new.json"])


def test_a_locked_database_still_spills_to_disk(made, tmp_path, monkeypatch):
    """Data that does not fit into memory is written to TMPDIR: neither into the output nor where the user works."""
    scratch, work = tmp_path / "scratch", tmp_path / "work"
    scratch.mkdir()
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(work)
    database_module.spill_folder.cache_clear()
    open_database(open_output(str(made / "out"))).close()
    shutil.rmtree(database_module.spill_folder().name)  # as cleaners of /tmp do; the next database makes another
    with open_database(open_output(str(made / "out")), memory_limit="100MB") as database:
        sql = "SELECT max(b) AS b FROM (SELECT b, row_number() OVER (ORDER BY a) AS n FROM t) WHERE n % 2 = 0"
        columns = "md5(range::VARCHAR) AS a, md5((range + 1)::VARCHAR) AS b"
        database.execute(f"CREATE TABLE t AS SELECT {columns} FROM range(2000000)")
        assert list(scratch.glob("*/*")) and not list(work.iterdir())
        (row,) = run_safe_sql(database, sql).read_all().to_pylist()
        assert row["b"] > "fff"
    database_module.spill_folder.cache_clear()
    assert not list(scratch.iterdir())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("uri", ["x", f"file:///{'a/' * 150_000}x.mp4"], ids=["no folder", "150,000 folders"])
def test_an_erased_video_is_looked_for_beside_a_uri_of_any_form(house, uri):
    assert featray("erase", house.out, "--video", house.video_id).exit_code == 0
    put(house, "videos", "uri", uri)
    for more in ([], ["--allow-again"]):
        tracemalloc.start()
        done = featray("erase", house.out, "--video", "nobody.mp4", *more)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert done.exit_code == 2 and "nobody.mp4" in done.stderr and peak < 100 << 20, (done.output, peak)


def test_rows_without_a_name_are_told_in_one_line(house, tmp_path):
    """A video without a URI, faces without an id that the meshes have, and faces whose id is a number."""
    out = house.out

    def edit(column, value):
        return lambda rows: rows.set_column(rows.column_names.index(column), column, pa.array([value] * len(rows)))

    house.edit_table("videos", edit("uri", None), every=True)
    for words in (["export", out, "--video", "no.mp4", "--format", "csv"], ["erase", out, "--video", "no.mp4"]):
        assert featray(*words).exit_code == 2, words
    house.edit_table("videos", edit("uri", "a.mp4"), every=True)
    house.edit_table("videos", edit("run_id", None), every=True)
    done = featray("export", out, "--video", house.video_id, "--format", "csv")
    assert done.exit_code == 1 and "run_id is null, so the row is damaged" in done.stderr
    house.edit_table("videos", edit("run_id", "r"), every=True)
    house.edit_table("faces", edit("video_id", 7), every=True)
    done = featray("export", out, "--video", house.video_id, "--format", "fex", "--out", tmp_path / "a.csv")
    assert done.exit_code in (0, 1, 2), done.output
    assert "column video_id is int64, not string" in featray("verify", out).output


def test_runs_without_their_columns_are_shown_without_them(house, tmp_path):
    house.edit_table("runs", lambda rows: pa.table({"x": [1] * len(rows)}), every=True)
    done = featray("status", house.out)
    assert done.exit_code == 0 and "started at an unknown time" in done.output
    assert featray("status", house.out, "--json").exit_code == 0
    assert featray("report", house.out, "--no-thumbnails", "--out", tmp_path / "a.html").exit_code in (0, 1)
    assert featray("query", house.out, "SELECT * FROM runs").exit_code == 0
    assert featray("verify", house.out).exit_code == 1


def test_a_null_character_in_a_name_is_told_in_one_line(house, tmp_path):
    put(house, "videos", "uri", "file:///in/a\0b.mp4")
    shown = featray("preview", house.out, "--video", house.video_id, "--frames", 1, "--out", tmp_path / "a.png")
    assert shown.exit_code == 2 and "contains a null character" in shown.stderr, shown.output
    report = featray("report", house.out, "--out", tmp_path / "a.html")
    assert report.exit_code == 0, report.output


def test_a_page_moves_no_cursor(house, tmp_path):
    """Of a file that somebody shows with `cat`."""
    for column in ("config", "model_name", "license", "detector"):
        put(house, "runs", column, ESCAPE)
    put(house, "videos", "uri", f"file:///in/{ESCAPE}.mp4")
    report = featray("report", house.out, "--out", tmp_path / "a.html", "--no-thumbnails")
    assert report.exit_code == 0, report.output
    page = (tmp_path / "a.html").read_text()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert r"\x1b[2J" in page


def test_commands_on_a_page_are_quoted_for_the_shell(house, tmp_path):
    """Readers paste them."""
    for table in ("videos", "frames", "faces", "tracks", "events", "mesh", "blendshapes"):
        house.edit_table(table, lambda rows: _renamed(rows, ";touch pwned"), every=True)
    done = featray("report", house.out, "--no-thumbnails", "--out", tmp_path / "a.html")
    assert done.exit_code == 0, done.output
    page = html.unescape((tmp_path / "a.html").read_text())
    command = re.search(r"<code>(featray preview [^<]*)</code>", page)
    assert command and re.search("--video '[0-9a-f]{16};touch pwned' ", command[1])


def _renamed(rows, new):
    ids = pa.array([one + new for one in rows["video_id"].to_pylist()], pa.string())
    return rows.set_column(rows.column_names.index("video_id"), "video_id", ids)
