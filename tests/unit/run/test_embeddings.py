"""Embeddings are written where they are asked for, equal for any division of the work, and nowhere else."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from featray.config import parse_config
from featray.errors import ConfigError
from featray.faces.embedder import embedder_of
from featray.identity import result_settings
from featray.tables.layout import Partition, list_partitions, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.opened import open_tables
from featray.upkeep.compact import compact_partition
from featray.upkeep.erase import erase
from featray.upkeep.finish import finish_partition
from featray.upkeep.recompute import recompute
from featray.upkeep.verify import verify
from tests.fixtures.outputs import bytes_of, ids, rows, tables_of
from tests.fixtures.runs import run_here, run_killed, small_config

pytestmark = pytest.mark.slow

ON = {"enabled": True, "accept_biometric": True, "every_s": 0.5}
DECODE = {"sample": {"every": 8}, "unit_frames": 16}


def table(root, name):
    found = pa.concat_tables([pq.read_table(path) for path in sorted(Path(root, name).rglob("*.parquet"))])
    return found.sort_by([("video_id", "ascending"), ("frame_index", "ascending")]).drop_columns(["run_id"])


@pytest.fixture(scope="module")
def people(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for name in ("anna.mp4", "ben.mp4"):
        shutil.copy(clips / "face.mp4", folder / name)
    return folder


@pytest.fixture(scope="module")
def identified(people, small_network, tmp_path_factory):
    out = tmp_path_factory.mktemp("identified") / "out"
    run_here(small_config([people / "anna.mp4"], out, small_network, decode=DECODE, identify=ON))
    run_here(small_config([people / "*.mp4"], out, small_network, decode=DECODE, identify=ON))
    return out


@pytest.fixture
def out(identified, tmp_path):
    shutil.copytree(identified, tmp_path / "out")
    return open_output(str(tmp_path / "out"))


def test_they_are_of_faces_half_a_second_apart(identified):
    embeddings, faces = table(identified, "embeddings"), table(identified, "faces")
    of_anna = embeddings.filter(pc.equal(embeddings["video_id"], ids(open_output(str(identified)))["anna"]))
    slots = [pts // 500_000 for pts in of_anna["pts_us"].to_pylist()]
    assert slots == sorted(set(slots)) and len(slots) >= 4, "one a slot: one face, and no cut"
    assert embeddings.num_rows < faces.num_rows / 1.4
    vectors = np.array(embeddings["embedding"].to_pylist())
    assert vectors.shape[1] == 128 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors @ vectors.T).min() > 0.9, "it is one person"
    assert set(embeddings["embedder"].to_pylist()) == {"face-api"}
    quality = embeddings["quality"].to_numpy()
    assert (quality > 0).all() and (quality <= 1).all()
    assert set(embeddings["track_id"].to_pylist()) == set(faces["track_id"].to_pylist())


def test_they_do_not_depend_on_how_videos_were_cut(identified, people, small_network, tmp_path):
    decode = {**DECODE, "unit_frames": 512}
    run_here(small_config([people / "*.mp4"], tmp_path / "out", small_network, decode=decode, identify=ON))
    assert table(tmp_path / "out", "embeddings").equals(table(identified, "embeddings"))


def test_off_nothing_of_it_is_there_and_all_else_is_equal(identified, people, small_network, tmp_path):
    config = small_config([people / "*.mp4"], tmp_path / "out", small_network, decode=DECODE)
    run_here(config)
    assert not (tmp_path / "out" / "embeddings").exists()
    plain, told = tables_of(tmp_path / "out"), tables_of(identified)
    for name, found in plain.items():
        for column in set(found.column_names) - {"release", "work_key", "uri"}:
            assert found[column].equals(told[name][column]), (name, column)
    files = {"weights_sha256": "w", "detector_sha256": "d", "precision": "fp32"}
    assert "identify" not in result_settings(config, **files, embedder_sha256=embedder_of(config.identify))


def test_with_them_numbers_can_be_computed_again(out):
    found = recompute(out, 2, seed=0, release=None)
    assert (found.checked, found.differing, found.unverifiable) == (2, [], [])


def test_they_are_in_no_view(identified):
    with open_tables(str(identified)) as out:
        assert "embeddings" not in out.tables
        assert out.sql("SELECT count(*) FROM duckdb_views() WHERE view_name = 'embeddings'").fetchall() == [(0,)]
        assert "embedding" not in out.features.columns


def test_they_are_verified_compacted_and_erased(out):
    assert verify(out).problems == []
    before = table(out.root.path, "embeddings")
    (partition,) = list_partitions(out)
    compact_partition(partition)
    assert len(list(Path(out.root.path, "embeddings").rglob("*.parquet"))) == 1
    assert table(out.root.path, "embeddings").equals(before) and verify(out).problems == []
    anna = ids(out)["anna"]
    vectors = before.filter(pc.equal(before["video_id"], anna))["embedding"].to_pylist()
    (here,) = erase(out, anna)
    assert here.rows["embeddings"] == len(vectors) > 0
    (audit,) = rows(out.root.path, "erasures")
    assert audit["embeddings_removed"] == len(vectors)
    assert verify(out).problems == [] and not traces_of(vectors[1:], out.root.path, besides=before, video=anna)


def traces_of(vectors, root, *, besides, video):
    """Return the files that contain one of the vectors, in Parquet or as bytes; those of other videos do not count."""
    kept = {tuple(one) for one in besides.filter(pc.not_equal(besides["video_id"], video))["embedding"].to_pylist()}
    wanted = [one for one in vectors if tuple(one) not in kept]
    found = []
    for path in (path for path in Path(root).rglob("*") if path.is_file()):
        data = bytes_of(path)
        found += [path for one in wanted if np.array(one, np.float32).tobytes() in data]
    return found


def test_a_track_is_erased_with_its_embeddings(out):
    anna = ids(out)["anna"]
    erase(out, anna, track_id=0)
    assert not [row for row in rows(out.root.path, "embeddings") if row["video_id"] == anna and row["track_id"] == 0]
    assert verify(out).problems == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows.slice(1).append_column("x", rows.slice(1)["quality"]), "a column x"),
        (lambda rows: _with(rows, "track_id", pa.array([7] * len(rows), pa.int32())), "a different pts_us, track_id"),
        (
            lambda rows: _with(rows, "embedding", pa.array([[1.0] * 128] * len(rows), pa.list_(pa.float32()))),
            "embedding does not hold",
        ),
        (lambda rows: _with(rows, "embedder", pa.array(["arcface-r50"] * len(rows))), "embedder is arcface-r50"),
    ],
    ids=["column", "track", "length", "embedder"],
)
def test_what_is_changed_is_found(out, change, text):
    path = next(Path(out.root.path, "embeddings").rglob("*.parquet"))
    whole = pq.read_table(path)
    pq.write_table(change(whole), path)
    assert any(text in problem.line() for problem in verify(out).problems)


def _with(rows, name, values):
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)


def test_a_killed_run_that_is_published_later_has_them(identified, people, small_network, tmp_path):
    run_killed(small_config([people / "*.mp4"], tmp_path / "out", small_network, decode=DECODE, identify=ON))
    (folder,) = (tmp_path / "out" / "_featray" / "shards" / "test").iterdir()
    finish_partition(UnheldPartition(Partition(open_output(str(tmp_path / "out")), "test", folder.name)))
    assert table(tmp_path / "out", "embeddings").equals(table(identified, "embeddings"))


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"identify": {"enabled": True}}, "biometric data, which the GDPR"),
        ({"identify": ON, "detect": {"detector": "boxes", "boxes": "b.csv"}}, "needs a detector that finds landmarks"),
        (
            {"identify": ON, "input": {"uris": ["a"], "path_fields": "{quality}/{name}"}},
            "already a column of featray's tables",
        ),
        ({"identify": {**ON, "embedder": "other"}}, "identify.embedder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(sections, text):
    data = {"dataset": "d", "input": {"uris": ["a"]}, "output": {"uri": "o"}}
    with pytest.raises(ConfigError, match=text):
        parse_config({**data, **sections})
    if sections.get("input"):
        parse_config({**data, **sections, "identify": {}})
