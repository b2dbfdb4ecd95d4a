"""Shards with an older schema are rewritten with the current one."""

import pyarrow as pa
import pyarrow.parquet as pq

from featray.tables.commits import Commit, CommittedFile
from featray.tables.layout import Partition, open_output
from featray.tables.lease import UnheldPartition
from featray.tables.replace import without_videos
from tests.fixtures.handmade import frames


def test_columns_that_were_added_since_are_null(tmp_path):
    out = tmp_path / "out"
    partition = UnheldPartition(Partition(open_output(str(out), create=True), "d", "r"))
    old = frames(6).drop_columns(["shot_cut", "repeats"])
    old = old.set_column(old.schema.get_field_index("video_id"), "video_id", pa.array(["gone", "kept"] * 3))
    folder = out / "frames" / "dataset=d" / "release=r"
    folder.mkdir(parents=True)
    pq.write_table(old, folder / "part-s-000.parquet")
    path = "frames/dataset=d/release=r/part-s-000.parquet"
    commit = Commit("s", "run", 1, [CommittedFile("frames", path, 6, 1, "x")], [], [])
    rewritten = without_videos(partition, commit, {"gone"}, generation="g", scratch=str(tmp_path))
    (file,) = rewritten.files
    table = pq.read_table(out / file.path)
    assert table["video_id"].to_pylist() == ["kept"] * 3
    assert table["shot_cut"].to_pylist() == table["repeats"].to_pylist() == [None] * 3
