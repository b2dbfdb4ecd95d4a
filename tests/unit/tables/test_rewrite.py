"""Files of an output that are edited: what is held of them at a time."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.errors import OutputError
from featray.schema import ROWS_A_GROUP
from featray.tables.lease import hold
from featray.tables.rewrite import holds_videos, rewrite_files
from featray.upkeep.verify import verify
from tests.fixtures.tampering import commit_of, file_of, path_of, sign


def test_a_row_group_of_a_million_rows_is_edited_in_pieces(partition, tmp_path):
    """Nulls take no bytes: a file of a megabyte could fill the memory."""
    file = file_of(partition, "faces")
    path = path_of(partition, file)
    face = pq.read_table(path, partitioning=None).slice(0, 1)
    nulls = [pa.array([row] * 1_000_000, field.type) for field, row in zip(face.schema, _values(face), strict=True)]
    pq.write_table(pa.Table.from_arrays(nulls, schema=face.schema), path, row_group_size=10**9)
    assert path.stat().st_size < 1_000_000
    sign(partition, file, rows=1_000_000)
    sizes = []

    def edit(rows):
        sizes.append(rows.num_rows)
        return rows

    commit = commit_of(partition, "faces")
    with hold(partition, "edit") as lease:
        files = rewrite_files(
            lease.partition, commit, {"faces": edit}, touching=None, generation="g", scratch=str(tmp_path)
        )
    assert files == commit.files
    assert sum(sizes) >= 1_000_000 and max(sizes) <= ROWS_A_GROUP["faces"]


def test_a_row_group_that_would_fill_the_memory_is_refused(partition):
    """A kilobyte holds any number of equal rows; an erasure, and others, read the ids of a whole row group."""
    file = file_of(partition, "videos")
    path = path_of(partition, file)
    pq.write_table(pa.table({"video_id": pa.nulls(5_000_000, pa.string())}), path, row_group_size=5_000_000)
    with pytest.raises(OutputError, match=r"damaged .a row group of 5,000,000 rows; at most 4,194,304 are read"):
        holds_videos(partition.output.root.child(file.path), {"0" * 16})
    sign(partition, file)
    said = [problem.text for problem in verify(partition.output).problems if problem.file == file.path]
    assert any("a row group of 5,000,000 rows" in text for text in said), said


def _values(face):
    required = ("video_id", "frame_index", "pts_us", "face_index")
    return [face[name][0].as_py() if name in required else None for name in face.column_names]
