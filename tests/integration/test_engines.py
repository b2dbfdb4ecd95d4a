"""DuckDB, Spark and Arrow read the main job's output without featray, with equal results."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import featray
from featray.cli import main
from featray.config_derive import DeriveConfig
from featray.findings.derive import Derivation
from featray.identity import video_id
from featray.persons.settings import PersonsSettings
from featray.schema import (
    FACE_TABLES,
    PERSON_TABLES,
    PRIVATE_TABLES,
    ROWS_A_GROUP,
    SORT_KEYS,
    TABLES,
    arrow_schema,
)
from featray.tables.layout import open_output
from featray.upkeep.derive import derive_partition
from featray.upkeep.erase import erase
from featray.upkeep.persons import find_persons
from tests.fixtures.crowd import Crowd
from tests.fixtures.handmade import write_output
from tests.fixtures.plugin import DATA
from tests.fixtures.runs import make_config, run_here

FIELDS = ("site", "session")
QUERIES = sorted((Path(__file__).parents[2] / "configs" / "queries").glob("*.sql"))
PORTABLE = [file for file in QUERIES if "Runs on DuckDB and Spark SQL" in file.read_text()]
DUCKDB_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
    pa.list_(pa.float32()): "FLOAT[]",
}
SPARK_TYPES = {
    pa.string(): "string",
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.timestamp("us", tz="UTC"): "timestamp",
    pa.list_(pa.float32()): "array<float>",
}


@pytest.fixture(scope="module")
def out(clips, tmp_path_factory):
    """Return the job's output of a video with a face, one without, and a file that is no video, in two partitions.

    A fourth video was erased from it.
    """
    folder = tmp_path_factory.mktemp("engines")
    for place, name in (("são paulo = 100%/007", "face.mp4"), ("oslo/012", "no_face.mp4")):
        (folder / "in" / place).mkdir(parents=True)
        shutil.copy(clips / name, folder / "in" / place / name)
    shutil.copy(clips / "no_face.mp4", folder / "in" / "oslo" / "012" / "erased.mp4")
    (folder / "in" / "oslo" / "012" / "notes.mp4").write_text("this is no video\n" * 100)
    source = {"uris": [f"{folder}/in/**/*.mp4"], "path_fields": "{site}/{session}/{name}"}
    summary = run_here(make_config([], folder / "out", input=source))
    assert summary.videos == {"ok": 3, "partial": 0, "failed": 1}
    erased = video_id(f"file://{folder}/in/oslo/012/erased.mp4")
    assert len(erase(open_output(str(folder / "out")), erased)) == 1
    return folder / "out"


@pytest.fixture(scope="module")
def both(out, tmp_path_factory):
    """Return the job's output merged into a hand-made one, which has other datasets and one path field less."""
    folder = tmp_path_factory.mktemp("both") / "out"
    write_output(folder, derived=True)
    shutil.copytree(out, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def mixed(out, tmp_path_factory):
    """Return the job's output merged into one written by an earlier featray, before `videos` had all its columns."""
    folder = tmp_path_factory.mktemp("mixed") / "out"
    shutil.copytree(DATA / "older_output", folder)
    shutil.copytree(out, folder, dirs_exist_ok=True)
    return folder


def duck(sql):
    return duckdb.connect().sql(sql)


def in_order(table, rows):
    return sorted(rows, key=lambda row: tuple(row[name] for name in ("release", *SORT_KEYS[table])))


def fields(table):
    return () if table in ("runs", "erasures") else FIELDS


def described(field):
    # Parquet calls a list's value "element", Arrow calls it "item".
    return field.name, str(field.type).replace("element: ", "item: "), field.metadata


@pytest.mark.parametrize("table", TABLES)
def test_files_are_as_promised(out, table):
    paths = sorted((out / table).rglob("*.parquet"))
    assert paths
    for path in paths:
        found, expected = pq.read_schema(path), arrow_schema(table, fields(table))
        assert [described(field) for field in found] == [described(field) for field in expected]
        metadata = pq.read_metadata(path)
        assert metadata.metadata[b"featray.release"].decode() in str(path)
        rows = pq.read_table(path, partitioning=None, page_checksum_verification=True).to_pylist()
        assert rows == sorted(rows, key=lambda row: tuple(row[name] for name in SORT_KEYS[table]))
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        assert all(group.num_rows == ROWS_A_GROUP[table] for group in groups[:-1])
        for group in groups:
            named = [metadata.schema.column(one.column_index).name for one in group.sorting_columns]
            assert tuple(named) == SORT_KEYS[table]
            columns = [group.column(index) for index in range(group.num_columns)]
            assert all(one.compression == "ZSTD" and one.is_stats_set and one.has_column_index for one in columns)
        for name in ("dataset", "release", *fields(table)):
            (value,) = {row[name] for row in rows}
            assert f"/{name}={value}/" in unquote(str(path)), "the partition stands inside too"


@pytest.mark.parametrize("table", [table for table in TABLES if table != "runs"])
def test_a_bloom_filter_finds_a_video(out, table):
    place = f"{out}/{table}/**/*.parquet"
    videos = {row[0] for row in duck(f"SELECT video_id FROM '{place}'").fetchall()}
    for video in (*videos, "0123456789abcdef"):
        probe = duck(f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{place}', 'video_id', '{video}')")
        assert not all(row[0] for row in probe.fetchall()) == (video in videos)


def test_a_damaged_page_is_noticed(out, tmp_path):
    (path,) = (out / "mesh").rglob("*.parquet")
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    (tmp_path / "damaged.parquet").write_bytes(data)
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.read_table(tmp_path / "damaged.parquet", partitioning=None, page_checksum_verification=True)


@pytest.mark.parametrize("table", TABLES)
def test_duckdb_and_spark_and_arrow_read_the_same(out, spark, table):
    expected = arrow_schema(table, fields(table))
    found = duck(f"FROM read_parquet('{out}/{table}/**/*.parquet', hive_types_autocast=false)")
    assert dict(zip(found.columns, map(str, found.types), strict=True)) == {
        field.name: DUCKDB_TYPES[field.type] for field in expected
    }
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    frame = spark.read.parquet(f"{out}/{table}")
    assert dict(frame.dtypes) == {field.name: SPARK_TYPES[field.type] for field in expected}
    plan = frame._jdf.queryExecution().executedPlan().toString()
    wide = len(expected) > 100  # `tracks`, which has few rows: beyond 100 columns Spark reads row by row
    assert wide or "Batched: true" in plan or "ColumnarToRow" in plan, "Spark's vectorized reader is on"
    arrow = in_order(table, ds.dataset(out / table, format="parquet").to_table().to_pylist())
    assert arrow
    assert in_order(table, found.to_arrow_table().to_pylist()) == arrow
    assert in_order(table, frame.toArrow().to_pylist()) == arrow


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Return an output of people with embeddings, tracks and persons."""
    crowd = Crowd(tmp_path_factory.mktemp("people") / "out")
    crowd.publish({"0.mp4": [0, (1, 2), 0], "1.mp4": [1, 2]})
    find_persons(crowd.partition, PersonsSettings())
    derive_partition(crowd.partition, Derivation(DeriveConfig()))
    return Path(crowd.output.root.path)


@pytest.mark.parametrize("table", [*PRIVATE_TABLES, *PERSON_TABLES])
def test_engines_read_who_is_who(people, spark, table):
    expected = arrow_schema(table)
    found = duck(f"FROM read_parquet('{people}/{table}/**/*.parquet', hive_types_autocast=false)")
    assert dict(zip(found.columns, map(str, found.types), strict=True)) == {
        field.name: DUCKDB_TYPES[field.type] for field in expected
    }
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    frame = spark.read.parquet(f"{people}/{table}")
    assert dict(frame.dtypes) == {field.name: SPARK_TYPES[field.type] for field in expected}
    arrow = in_order(table, ds.dataset(people / table, format="parquet").to_table().to_pylist())
    assert arrow and in_order(table, frame.toArrow().to_pylist()) == arrow
    assert in_order(table, found.to_arrow_table().to_pylist()) == arrow


def test_the_join_of_the_docs_is_what_views_show(people, spark):
    """No file has `person_id`; the page on queries shows how to join it in Spark."""
    text = (Path(__file__).parents[2] / "docs" / "guides" / "queries.md").read_text("utf-8")
    (join,) = re.findall(r"`(SELECT t\.\*, p\.person_id FROM tracks t .*?)`", text, re.DOTALL)
    for table in ("tracks", "persons"):
        spark.read.parquet(f"{people}/{table}").createOrReplaceTempView(table)
    rows = spark.sql(f"SELECT video_id, track_id, person_id FROM ({join}) ORDER BY ALL").collect()
    with featray.open(str(people)) as tables:
        shown = tables.sql("SELECT video_id, track_id, person_id FROM tracks ORDER BY ALL").fetchall()
    assert [tuple(row) for row in rows] == shown and len({row[2] for row in shown}) == 3
    assert "person_id" not in spark.read.parquet(f"{people}/tracks").columns


KEY = "dataset, release, video_id, frame_index, face_index"
JOIN = f"""
    SELECT faces.site, faces.session, videos.uri, faces.frame_index, AU12, mouthSmileLeft, frames.faces,
        frames.keyframe, videos.width, mesh.mesh_xyz
    FROM faces
    JOIN blendshapes USING ({KEY})
    JOIN mesh USING ({KEY})
    JOIN frames USING (dataset, release, video_id, frame_index)
    JOIN videos USING (dataset, release, video_id)
    JOIN runs ON runs.run_id = faces.run_id
    WHERE faces.site = 'são paulo = 100%'
    ORDER BY frame_index
"""


def view_all(spark, out):
    """Register every table as a Spark view, with or without partitions, of any schema version."""
    for table in TABLES:
        if (out / table).exists():
            reader = spark.read.option("mergeSchema", True).option("recursiveFileLookup", True)
            reader.parquet(f"{out}/{table}").createOrReplaceTempView(table)


def test_tables_join_one_to_one(out, spark):
    connection = duckdb.connect()
    for table in TABLES:
        connection.execute(f"CREATE VIEW {table} AS FROM '{out}/{table}/**/*.parquet'")
    rows = connection.sql(JOIN).to_arrow_table().to_pylist()
    assert len(rows) == len(connection.sql("FROM faces")) == 20
    view_all(spark, out)
    assert spark.sql(JOIN).toArrow().to_pylist() == rows
    with featray.open(str(out)) as tables:
        assert tables.sql(JOIN).to_arrow_table().to_pylist() == rows


def test_engines_open_only_the_partitions_that_are_asked_for(out, spark, tmp_path):
    """Another partition contains an unreadable file, so an engine that does not prune partitions fails."""
    shutil.copytree(out / "frames", tmp_path / "frames")
    (release,) = (tmp_path / "frames" / "dataset=test").iterdir()
    (release / "site=zürich" / "session=1").mkdir(parents=True)
    (release / "site=zürich" / "session=1" / "part.parquet").write_bytes(b"PAR1 no Parquet at all PAR1")
    sql = f"SELECT count(*) FROM '{tmp_path}/frames/**/*.parquet'"
    assert duck(f"{sql} WHERE site = 'oslo' AND dataset = 'test'").fetchall() == [(4,)]
    with pytest.raises(duckdb.Error):
        duck(sql).fetchall()
    schema = spark.read.parquet(f"{out}/frames").schema
    frames = spark.read.schema(schema).parquet(f"{tmp_path}/frames")
    assert frames.where("site = 'oslo' AND dataset = 'test'").count() == 4
    with pytest.raises(Exception, match=r"(?i)parquet"):
        frames.selectExpr("max(pts_us)").collect()


def test_the_tutorials_spark_says_the_same_as_its_duckdb(out, spark, tmp_path, monkeypatch, capsys):
    """Both blocks run unchanged, but the Spark session, which tests share, stays open and gets an absolute path."""
    text = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text("utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "pts_us // 5_000_000" in block]
    blocks += [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "pyspark" in block]
    with_duckdb, with_spark = blocks
    (tmp_path / "tables").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    exec(with_duckdb, {})
    expected = re.findall(r"^\w{16} +(\d+)(?:\.0)? s (\d\.\d{3})$", capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setattr(type(spark), "stop", lambda self: None)
    exec(with_spark.replace('"tables/faces"', repr(f"{out}/faces")), {})
    found = re.findall(r"^\|\w{16}\| +(\d+)\| *(\d\.\d+)", capsys.readouterr().out, re.MULTILINE)
    assert len(expected) >= 4
    assert [(second, f"{float(value):.3f}") for second, value in found] == expected


def test_what_engines_make_of_partition_names(out, spark):
    """By default engines guess types from names; the settings in the README keep the names as written."""
    for guess, expected in (("true", 7), ("false", "007")):
        spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", guess)
        assert spark.read.parquet(f"{out}/faces").select("session").first()[0] == expected
    (row,) = duck(f"SELECT DISTINCT site, session FROM '{out}/faces/**/*.parquet'").fetchall()
    assert row == ("são paulo = 100%", "007")


def test_outputs_with_other_path_fields_are_read_together(both, spark):
    """Engines refuse folders of different depth, unless they are told to take the columns from the files."""
    faces = f"{both}/faces"
    sql = "SELECT dataset, site, session, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
    rows = duck(sql.format(f"read_parquet('{faces}/**/*.parquet', union_by_name=true)")).fetchall()
    assert [row[:3] for row in rows] == [
        ("one", "berlin", None), ("one", "oslo", None), ("test", "são paulo = 100%", "007"), ("two", "berlin", None),
    ]  # fmt: skip
    with pytest.raises(Exception, match="CONFLICTING_PARTITION_COLUMN_NAMES"):
        spark.read.parquet(faces).count()
    view_all(spark, both)
    assert [tuple(row) for row in spark.sql(sql.format("faces")).collect()] == rows
    with featray.open(str(both)) as tables:
        assert tables.sql(sql.format("faces")).fetchall() == rows


def test_files_of_an_older_schema_are_read_with_new_ones(out, mixed, spark):
    sql = "SELECT release, uri, status, bytes_read, mirrored FROM {} ORDER BY release, uri"
    rows = duck(sql.format(f"read_parquet('{mixed}/videos/**/*.parquet', union_by_name=true)")).fetchall()
    assert len(rows) == 6
    older = [row for row in rows if row[0] == "synthetic-v25-seed0-3045f579"]
    assert len(older) == 3 and all(row[3:] == (None, None) for row in older), "what it did not know"
    assert sum(row[3] == 0 for row in rows) == 3, "and a newer one does"
    merged = spark.read.option("mergeSchema", True).parquet(f"{mixed}/videos")
    merged.createOrReplaceTempView("videos")
    assert [tuple(row) for row in spark.sql(sql.format("videos")).collect()] == rows
    with featray.open(str(mixed), release="all") as tables:
        assert tables.sql(sql.format("videos")).fetchall() == rows
    with featray.open(str(DATA / "older_output")) as tables:
        assert tables.sql(sql.format("videos")).fetchall() == older, "all columns, where no file has them"
        assert set(tables.videos.columns) == {*arrow_schema("videos", FIELDS).names}
    for table in FACE_TABLES:
        assert duck(f"SELECT count(*) FROM '{mixed}/{table}/**/*.parquet'").fetchall() == [(24,)]


def answer(out, file):
    done = CliRunner().invoke(main, ["query", str(out), f"@{file}", "--format", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.mark.parametrize("file", QUERIES, ids=lambda file: file.stem)
def test_a_query_runs_on_the_jobs_output(out, file, tmp_path):
    text = file.read_text()
    if file.stem == "group_comparison":  # the query's comment asks for columns of the user's own
        text = re.sub(r"\bcondition\b", "site", re.sub(r"\bparticipant\b", "session", text))
    (tmp_path / file.name).write_text(text)
    rows = answer(out, tmp_path / file.name)
    with featray.open(str(out)) as tables:
        assert tables.sql(text).columns == list(rows[0]) if rows else True
    # Synthetic weights may produce no event.
    assert rows or "FROM events" in text


def test_queries_give_the_same_in_spark(both, spark):
    assert len(PORTABLE) == 11
    view_all(spark, both)
    for file in PORTABLE:
        found = [row.asDict() for row in spark.sql(file.read_text()).collect()]
        expected = answer(both, file)
        # `two` has only one person, so there are no answered smiles.
        assert {row["dataset"] for row in expected} >= ({"one"} if file.stem == "answered_smiles" else {"one", "two"})
        assert len(found) == len(expected), file
        for one, other in zip(found, expected, strict=True):
            assert one == {
                name: pytest.approx(value, rel=1e-6, abs=1e-7) if isinstance(value, float) else value
                for name, value in other.items()
            }, file
