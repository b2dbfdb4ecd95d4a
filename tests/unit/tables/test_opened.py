"""featray.open, on the hand-made output."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

import featray
from featray.cli.show import print_result
from featray.errors import OutputError, StorageError, UsageError
from featray.records import load
from featray.schema import FACES, FLOAT, TABLES, Column
from featray.tables.commits import Commit, write_commit
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.writer import TableWriter
from tests.fixtures.handmade import RELEASE, write_output


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "out"
    return folder, write_output(folder)


@pytest.fixture
def out(made):
    with featray.open(str(made[0])) as tables:
        yield tables


def test_importing_featray_loads_nothing_heavy():
    code = (
        "import sys, featray; featray.__version__\n"
        "heavy = {'torch', 'ray', 'duckdb', 'pyarrow', 'numpy', 'pandas', 'fsspec', 'featray.views.fex'}\n"
        "print(heavy & set(sys.modules))\n"
        "featray.open\n"
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["set()", "set()"]


def test_every_table_is_an_attribute(out, made):
    assert out.tables == tuple(TABLES) and out.views == ("dlib68", "features", "summary")
    assert {*out.tables, *out.views} <= set(type(out).__annotations__), "type checkers know them all"
    for name in TABLES:
        assert len(getattr(out, name)) == len(made[1][name]), name
        assert name in dir(out)
    with pytest.raises(AttributeError, match="no 'face'; tables: faces, blendshapes"):
        _ = out.face


def test_rows_as_arrow_pandas_and_python(out, made):
    faces = [row for row in made[1]["faces"] if row["AU12"] == 1.0]
    some = out.faces.filter("AU12 = 1").select("video_id, pts_us, AU12")
    assert isinstance(some.to_arrow_table(), pa.Table)
    for rows in (some.to_arrow_table().to_pylist(), some.df().to_dict("records")):
        assert sorted(row["pts_us"] for row in rows) == sorted(row["pts_us"] for row in faces)
    at = {row[0] for row in out.sql('SELECT "at" FROM errors').fetchall()}
    assert at == {row["at"] for row in made[1]["errors"]}, "UTC, whatever the machine's zone"


def test_features_has_one_row_a_face_with_its_blendshapes(out, made):
    features = {
        (row["dataset"], row["video_id"], row["frame_index"], row["face_index"]): row
        for row in out.features.to_arrow_table().to_pylist()
    }
    assert len(features) == len(made[1]["faces"])
    for face, shapes in zip(made[1]["faces"], made[1]["blendshapes"], strict=True):
        row = features[face["dataset"], face["video_id"], face["frame_index"], face["face_index"]]
        assert (row["AU12"], row["neutral"], row["site"]) == (face["AU12"], shapes["neutral"], face["site"])
        assert row["track_id"] == face["track_id"]
    assert len(set(out.features.columns)) == len(out.features.columns)


def test_features_without_blendshapes_keeps_the_faces(tmp_path):
    rows = write_output(tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    for dataset in ("one", "two"):
        partition = UnheldPartition(Partition(output, dataset, RELEASE))
        record = tmp_path / "out" / "_featray" / "commits" / dataset / RELEASE / "0.json"
        commit = load(Commit, record.read_text())
        kept = [file for file in commit.files if file.table != "blendshapes"]
        write_commit(partition, Commit(commit.name, commit.run_id, commit.published_at_us, kept))
    with featray.open(str(tmp_path / "out")) as out:
        assert len(out.features.filter("jawOpen IS NULL")) == len(rows["faces"])


def test_dlib68_takes_its_vertices_from_the_mesh(tmp_path):
    output = open_output(str(tmp_path / "out"), create=True)
    partition = UnheldPartition(Partition(output, "one", RELEASE))
    folder = partition.folder("mesh")
    scratch = str(tmp_path)
    writer = TableWriter("mesh", partition, folder=folder, stem="part-0", scratch=scratch, footer={}, path_fields=())
    writer.write_rows([{"video_id": "v", "frame_index": 0, "face_index": 0, "mesh_xyz": list(range(3 * 478))}])
    write_commit(partition, Commit("0", "run-1", 1, writer.close()))
    with featray.open(str(tmp_path / "out")) as out:
        points = out.dlib68.fetchall()[0][-1]
    assert len(points) == len({x for x, _ in points}) == 68
    assert points[33] == [3 * 1, 3 * 1 + 1], "below the nose: vertex 1"


def test_releases(out, made):
    assert out.releases == {"one": (RELEASE,), "two": (RELEASE,)}
    with pytest.raises(UsageError, match="--release none: not in this output"):
        featray.open(str(made[0]), release="none")


def test_a_column_that_only_newer_files_have(tmp_path, monkeypatch):
    """The schema grows by a column: old rows read as null, and an older featray shows the column too."""
    rows = write_output(tmp_path / "out")
    grown = {**TABLES, "faces": (*FACES, Column("AU99", FLOAT, "made up"))}
    with monkeypatch.context() as patch:
        patch.setattr("featray.schema.TABLES", grown)
        partition = UnheldPartition(Partition(open_output(str(tmp_path / "out")), "three", RELEASE))
        writer = TableWriter(
            "faces",
            partition,
            folder=partition.folder("faces"),
            stem="part-0",
            scratch=str(tmp_path),
            footer={},
            path_fields=(),
        )
        writer.write_rows([{**rows["faces"][0], "dataset": "three", "AU99": 0.5}])
        write_commit(partition, Commit("0", "run-2", 2, writer.close()))
        both = _count_by_au99(tmp_path / "out")
    assert both == [(0.5, 1), (None, len(rows["faces"]))]
    assert _count_by_au99(tmp_path / "out") == both


def _count_by_au99(folder):
    with featray.open(str(folder)) as out:
        return out.sql("SELECT AU99, count(*) FROM faces GROUP BY 1 ORDER BY 1").fetchall()


def test_wrong_sql_is_one_line(out):
    with pytest.raises(UsageError, match=r"query: .*nothing.*tables: faces, .*features, summary$"):
        out.sql("SELECT nothing FROM faces")
    with pytest.raises(UsageError, match="returns no rows"):
        out.sql("-- nothing")


def test_threads_share_it(out, made):
    def count(_):
        return len(out.faces) + len(out.sql("SELECT * FROM videos"))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(count, range(20))) == {len(made[1]["faces"]) + len(made[1]["videos"])}


def test_closed_is_closed(made):
    out = featray.open(str(made[0]))
    faces = out.faces
    with out:
        assert len(faces) > 0
    for use in (lambda: out.faces, lambda: out.sql("SELECT 1")):
        with pytest.raises(UsageError, match="is closed; open it again"):
            use()
    with pytest.raises(Exception, match="closed"):
        faces.fetchall()
    out.close()
    assert "closed" in repr(out)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no Parquet")])
def test_a_published_file_that_cannot_be_read_is_one_line(tmp_path, damage):
    write_output(tmp_path / "out")
    damage(next((tmp_path / "out" / "frames").rglob("*.parquet")))
    with pytest.raises(StorageError, match=r"/out: a published file is gone or damaged; run `featray verify`$"):
        featray.open(str(tmp_path / "out"))


def test_no_output_there(tmp_path):
    with pytest.raises(OutputError, match="is not a featray output"):
        featray.open(str(tmp_path))


def test_json_takes_what_sql_gives(capsys):
    """Sums of integers are decimals, and structs and lists may contain times."""
    table = pa.table(
        {
            "n": pa.array([Decimal(7)], pa.decimal128(38, 0)),
            "x": pa.array([Decimal("0.25")], pa.decimal128(4, 2)),
            "s": [{"t": datetime(2026, 3, 1, 12)}],
            "d": [date(2026, 3, 1)],
        }
    )
    print_result(table.to_reader(), "json")
    assert (
        " ".join(capsys.readouterr().out.split())
        == '[ { "n": 7, "x": 0.25, "s": { "t": "2026-03-01T12:00:00.000" }, "d": "2026-03-01" } ]'
    )
