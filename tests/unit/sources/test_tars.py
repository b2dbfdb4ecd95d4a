"""Tars whose headers claim more than there is, and members that are not one range of bytes."""

import io
import os
import subprocess
import tarfile
import tracemalloc

import pytest

from featray.config import InputConfig
from featray.errors import ErrorCode
from featray.extract.plan import open_source
from featray.sources import tars
from featray.sources.listing import list_videos


def videos(path):
    return list(list_videos(InputConfig(uris=[str(path)])))


def header(kind, size, name="././@LongLink"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name, data=b"1234"):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.GNU_FORMAT) + data.ljust(512, b"\0")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_gigabytes_is_not_read(tmp_path, kind):
    with (tmp_path / "s.tar").open("wb") as file:
        file.write(member("a.mp4") + header(kind, 5 << 30))
        file.truncate(5 << 30)  # a sparse file: no disk is used
    tracemalloc.start()
    good, bad = videos(tmp_path / "s.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (good.member, good.problem) == ("a.mp4", None)
    assert bad.problem[0] == ErrorCode.BAD_SHARD
    assert "a header of 5368709120 bytes" in bad.problem[1] and "after member a.mp4" in bad.problem[1]
    assert peak < 64 << 20


def test_headers_of_headers_end(tmp_path):
    (tmp_path / "s.tar").write_bytes(member("a.mp4") + header(tarfile.XHDTYPE, 0) * 5000 + member("b.mp4"))
    good, bad = videos(tmp_path / "s.tar")
    assert good.member == "a.mp4" and "too many headers in a row" in bad.problem[1]


def test_a_sparse_map_without_end_is_not_read(tmp_path):
    block = bytearray(header(tarfile.GNUTYPE_SPARSE, 0, "b.mp4"))
    block[482] = 1  # an extended header follows
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = bytes(504) + b"\1" + bytes(7)
    (tmp_path / "s.tar").write_bytes(member("a.mp4") + bytes(block) + more * (tars._MAX_SPARSE_BLOCKS + 10))
    good, bad = videos(tmp_path / "s.tar")
    assert good.member == "a.mp4" and "a sparse map that does not end" in bad.problem[1]


@pytest.mark.parametrize("form", ["gnu", "pax", "0.0", "0.1"])
def test_a_sparse_member_is_refused_and_the_next_is_read(tmp_path, form):
    with (tmp_path / "gap.mp4").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"end")
    (tmp_path / "next.mp4").write_bytes(b"the next")
    how = ["--format=gnu"] if form == "gnu" else ["--format=pax", *([f"--sparse-version={form}"] * (form != "pax"))]
    command = ["tar", "-S", *how, "-cf", tmp_path / "s.tar", "-C", tmp_path, "gap.mp4", "next.mp4"]
    subprocess.run(command, check=True)
    assert (tmp_path / "s.tar").stat().st_size < 1 << 18, "it is stored without its hole"
    gap, following = videos(tmp_path / "s.tar")
    assert gap.member == "gap.mp4" and gap.problem[0] == ErrorCode.BAD_SHARD and "sparse" in gap.problem[1]
    with open_source(following, {}) as file:
        assert file.read() == b"the next"


def test_names_that_are_too_long_are_counted_and_not_held(tmp_path):
    name = "n" * 5000 + ".mp4"
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for each in (name, "b.mp4"):
            archive.addfile(tarfile.TarInfo(each))
    bad, good = videos(tmp_path / "s.tar")
    assert "a member's name has 5004 characters" in bad.problem[1] and good.member == "b.mp4"


def test_what_macos_adds_to_a_tar_is_no_video(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("._a.mp4", "a.mp4", "d/._b.mp4"):
            archive.addfile(tarfile.TarInfo(name))
    assert [video.member for video in videos(tmp_path / "s.tar")] == ["a.mp4"]


def test_global_headers_do_not_pile_up(tmp_path):
    record = b"".join(b"%d comment%05d=%b\n" % (522, i, b"x" * 504) for i in range(40))
    path = tmp_path / "s.tar"
    with path.open("wb") as file:
        for i in range(300):
            head = header(tarfile.XGLTYPE, len(record), f"g{i}")
            changed = record.replace(b"comment", b"key%04d" % i)
            file.write(head + changed.ljust(-(-len(changed) // 512) * 512, b"\0") + member(f"{i}.mp4"))
        file.write(bytes(1024))
    tracemalloc.start()
    assert sum(1 for _ in tars.read_tar(io.BytesIO(path.read_bytes()))) == 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < os.path.getsize(path) + (4 << 20)


@pytest.mark.parametrize("size", [1 << 61, (1 << 63) - 1, 1 << 80])
@pytest.mark.parametrize("told", ["header", "pax"])
def test_a_size_that_no_file_has_is_refused(tmp_path, size, told):
    """No column of a table could hold it."""
    info = tarfile.TarInfo("a.mp4")
    if told == "pax":
        info.pax_headers = {"size": str(size)}
        head = info.tobuf(tarfile.PAX_FORMAT)
    else:
        info.size = size
        head = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "s.tar").write_bytes(member("good.mp4") + head + bytes(1024))
    good, bad = videos(tmp_path / "s.tar")
    assert (good.member, good.size_bytes) == ("good.mp4", 4)
    assert bad.problem == (ErrorCode.BAD_SHARD, bad.problem[1])
    assert "beyond that of any file" in bad.problem[1]


def test_a_position_far_beyond_a_member_is_its_end(tmp_path):
    (tmp_path / "s.tar").write_bytes(member("a.mp4") + bytes(1024))
    (video,) = videos(tmp_path / "s.tar")
    with open_source(video, {}) as file:
        file.seek((1 << 63) - 1)
        assert file.read(4) == b""
