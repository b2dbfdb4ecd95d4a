import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

import fsspec
import pytest

from featray.errors import OutputError, StorageError
from featray.store.location import Location, locate
from featray.store.storage import (
    delete,
    delete_folder,
    list_files,
    list_folders,
    open_ranges,
    read_bytes,
    upload,
    write_bytes,
)


@pytest.mark.parametrize(
    "options", [{"endpoint": "hunter2"}, {"endpoint_url": "hunter2"}, {"client_kwargs": {"secret": "hunter2"}}]
)
def test_wrong_options_are_said_before_anything_is_asked_for(options):
    with pytest.raises(StorageError, match="cannot be opened with these storage options") as caught:
        locate("s3://bucket/a", {"anon": True, **options})
    assert all(name in str(caught.value) for name in options) and "hunter2" not in str(caught.value)


@pytest.mark.parametrize("uri", ["data:text/plain,abc", "data://x"])
def test_data_is_no_place(uri):
    with pytest.raises(StorageError, match="cannot be opened: unknown protocol"):
        locate(uri)


def test_an_unknown_protocol():
    with pytest.raises(StorageError, match="foo://bucket/a: cannot be opened: unknown protocol"):
        locate("foo://bucket/a")


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    if request.param == "local":
        return locate(str(tmp_path / "root"))
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    return locate("memory://root")


def test_write_read_list_delete(root):
    write_bytes(root.child("a", "b.json"), b"one")
    write_bytes(root.child("a", "b.json"), b"two")
    write_bytes(root.child("c.json"), b"three")
    assert read_bytes(root.child("a/b.json")) == b"two"
    assert [path.rsplit("/", 1)[-1] for path in list_files(root)] == ["b.json", "c.json"]
    assert list_folders(root) == ["a"]
    with open_ranges(root.child("c.json")) as file:
        file.seek(2)
        assert file.read(2) == b"re"
    delete(root.child("c.json"))
    delete(root.child("c.json"))
    with pytest.raises(StorageError, match=r"c\.json: does not exist"):
        read_bytes(root.child("c.json"))


def test_listing_what_is_not_there_is_empty(root):
    assert list_files(root.child("nothing")) == []
    assert list_folders(root.child("nothing")) == []


@pytest.mark.parametrize("how", ["bytes", "upload"])
def test_what_a_user_names_that_is_no_file_stays_what_it_is(tmp_path, how):
    """`--out` may be a pipe that is read, a device, or a link: a rename would replace it by a file."""
    pipe, link, target = (tmp_path / name for name in ("pipe", "link.csv", "target.csv"))
    os.mkfifo(pipe)
    link.symlink_to(target)
    target.write_text("old")

    def written(path):
        if how == "bytes":
            write_bytes(locate(str(path)), b"new")
        else:
            (tmp_path / "made").write_bytes(b"new")
            upload(str(tmp_path / "made"), locate(str(path)))

    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        written(pipe)
        assert read.result(timeout=10) == b"new" and pipe.is_fifo()
    written(link)
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert not (tmp_path / "made").exists()


def test_upload_moves(root, tmp_path):
    source = tmp_path / "x.bin"
    source.write_bytes(b"data")
    upload(str(source), root.child("t", "x.bin"))
    assert read_bytes(root.child("t", "x.bin")) == b"data"
    assert not source.exists()


def test_a_failed_local_write_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(StorageError, match="No space left on device"):
        write_bytes(locate(str(tmp_path)).child("x.json"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_place_without_its_secrets():
    with pytest.raises(StorageError) as caught:
        locate("nonsense://user:hunter2@host/x")
    assert "nonsense://host/x" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_is_moved_to_its_place_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Otherwise a commit could survive a power cut and the file that it names could be lost."""
    synced, placed = set(), []
    fsync, move = os.fsync, os.replace

    def noting_fsync(file):
        fsync(file)
        synced.add(os.fstat(file).st_ino)

    def noting_replace(old, new):
        placed.append(os.stat(old).st_ino in synced)
        move(old, new)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    (tmp_path / "made").write_bytes(b"rows")
    upload(str(tmp_path / "made"), locate(str(tmp_path / "out" / "part.parquet")))
    write_bytes(locate(str(tmp_path / "out" / "commit.json")), b"names it")
    assert placed == [True, True]
    assert (tmp_path / "out" / "part.parquet").read_bytes() == b"rows"


@pytest.mark.parametrize("scheme, extra", [(s, "gcs") for s in ("gs", "gcs")] + [(s, "azure") for s in ("az", "abfs")])
def test_a_store_whose_package_is_missing_is_one_line_with_the_fix(scheme, extra):
    if find_spec({"gcs": "gcsfs", "azure": "adlfs"}[extra]):
        pytest.skip("its package is installed here")
    with pytest.raises(StorageError, match=rf"^{scheme}://b/x: .*pip install 'featray\[{extra}\]'$"):
        locate(f"{scheme}://b/x")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_outside_is_deleted_through_a_link_that_comes_after_the_check(tmp_path, monkeypatch, kind):
    out, victim = tmp_path / "out", tmp_path / "victim"
    for folder in (out / "rows", victim):
        (folder / "mine").mkdir(parents=True)
        (folder / "mine" / "thesis.tex").write_text("mine")
    place = replace(locate(str(out)), root=str(out)).child("rows", "mine")

    def check(location):
        if not (out / "rows").is_symlink():
            (out / "rows").rename(out / "aside")
            (out / "rows").symlink_to(victim)

    monkeypatch.setattr(Location, "check_parent_inside", check)
    with pytest.raises(OutputError, match="a link leads out of the output"):
        delete_folder(place) if kind == "folder" else delete(place.child("thesis.tex"))
    assert (victim / "mine" / "thesis.tex").read_text() == "mine"
