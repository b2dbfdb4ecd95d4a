"""Files beside the tables that are no exports, or odd ones, do not stop an erasure."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featray.tables.layout import open_output
from featray.upkeep import erase_exports as exports
from featray.upkeep.erase_exports import erase_exports, unsearched_files

VIDEO = "0123456789abcdef"
HEADER = b"dataset,release,video_id\n"


@pytest.fixture
def output(tmp_path):
    return open_output(str(tmp_path / "out"), create=True)


def test_lines_with_a_carriage_return_are_no_header(output, tmp_path):
    (tmp_path / "out" / "mac.csv").write_bytes(b"dataset,release\rvideo_id,x\n1,2\n")
    assert erase_exports(output, VIDEO) == []


def test_a_parquet_file_with_a_column_twice_is_no_export(output, tmp_path):
    names = ["video_id", "video_id", "dataset", "release"]
    pq.write_table(pa.table([pa.array([VIDEO])] * 4, names=names), tmp_path / "out" / "a.parquet")
    assert erase_exports(output, VIDEO) == []


def test_what_is_not_searched_is_listed(output, tmp_path):
    out = tmp_path / "out"
    (out / "exports").mkdir()
    for name in ("exports/ben.eaf", "exports/ben.TextGrid", "report.html", "ben.rrd", "notes.txt"):
        (out / name).write_text("ben")
    (out / "openface.csv").write_text("frame,face_id,timestamp,intensity_scale\n")
    (out / "own.csv").write_text("a,b\n")
    os.mkfifo(out / "pipe.csv")
    (out / "away.csv").symlink_to("/etc/passwd")
    assert erase_exports(output, VIDEO) == []
    expected = ["away.csv", "ben.rrd", "exports/ben.TextGrid", "exports/ben.eaf", "openface.csv", "pipe.csv"]
    assert unsearched_files(output) == [*expected, "report.html"]


@pytest.mark.parametrize("before", [0, 1, 15, 16, 17, 40])
def test_a_row_is_found_wherever_it_is(output, tmp_path, monkeypatch, before):
    monkeypatch.setattr(exports, "_PIECE_BYTES", 16)
    (tmp_path / "out" / "a.csv").write_bytes(HEADER + b"x" * before + VIDEO.encode() + b"\n")
    (tmp_path / "out" / "b.csv").write_bytes(HEADER + b"x" * before + VIDEO[:-1].encode() + b"\n")
    pq.write_table(pa.table({n: [VIDEO] for n in ("dataset", "release", "video_id")}), tmp_path / "out" / "c.parquet")
    assert sorted(erase_exports(output, VIDEO)) == ["a.csv", "c.parquet"]


def test_a_line_is_not_held_in_memory(output, tmp_path, monkeypatch):
    """A file with a hole of terabytes takes no space."""
    sizes = []

    class Watched:
        def __init__(self, file):
            self._file = file

        def read(self, size):
            sizes.append(size)
            return self._file.read(size)

    searched = exports._is_in
    monkeypatch.setattr(exports, "_is_in", lambda file, text: searched(Watched(file), text))
    (tmp_path / "out" / "a.csv").write_bytes(HEADER + bytes(3 << 20))
    assert erase_exports(output, VIDEO) == []
    assert len(sizes) == 4 and max(sizes) <= 1 << 20
