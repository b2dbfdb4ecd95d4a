"""Places where an output may be."""

import shutil

import pytest

from featray.errors import ConfigError, LeaseError, OutputError
from featray.store.exclusive import create_bytes
from featray.store.location import Location
from featray.store.storage import upload, write_bytes
from featray.tables.layout import Partition, list_partitions, open_output
from featray.tables.lease import hold
from featray.upkeep.erase import erase
from featray.upkeep.verify import verify


@pytest.mark.parametrize("name", ["take[1]", "all*", "really?"])
@pytest.mark.parametrize("create", [True, False])
def test_a_place_whose_files_could_not_be_read_again_is_refused(tmp_path, name, create):
    with pytest.raises(ConfigError, match=r"an output's URI must not contain") as caught:
        open_output(f"{tmp_path}/{name}", create=create)
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("left", "ours"),
    [
        ("_featray/landing/d/r/a-b/plan.json", True),
        ("_featray/leases/d/r/00000001.json", True),
        ("_featray/.output.json.123.tmp", True),
        ("_featray/commits/d/r/a.json", False),
        ("_featray/erased/a.json", False),
        ("faces/part.parquet", False),
        ("notes.txt", False),
    ],
)
def test_what_a_run_leaves_whose_output_is_deleted_under_it_is_gone_on_with(tmp_path, left, ours):
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("x")
    if ours:
        open_output(str(tmp_path), create=True)
        assert (tmp_path / "_featray" / "output.json").exists() and (tmp_path / left).exists()
    else:
        with pytest.raises(OutputError, match="is neither empty nor a featray output"):
            open_output(str(tmp_path), create=True)


@pytest.mark.parametrize("left", [[], ["out"]], ids=["deleted", "unmounted"])
def test_nothing_is_written_into_an_output_that_is_gone(tmp_path, left):
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    with pytest.raises(LeaseError, match="was deleted during the run"), hold(partition, "run") as lease:
        shutil.rmtree(tmp_path / "out")
        for folder in left:
            (tmp_path / folder).mkdir()
        for reading in (list_partitions, verify):
            with pytest.raises(OutputError, match="is gone, or is not on this machine"):
                reading(partition.output)
        with pytest.raises(OutputError, match="is gone, or is not on this machine"):
            write_bytes(partition.commit("a"), b"x")
        with pytest.raises(OutputError, match="is gone, or is not on this machine"):
            erase(partition.output, "0123456789abcdef")
        lease.partition.check()
    assert [place.name for place in tmp_path.rglob("*")] == left


@pytest.mark.parametrize("way", [write_bytes, create_bytes, lambda place, _: upload(f"{place.root}-new", place)])
@pytest.mark.parametrize("moment", ["before the folder is made", "after it"])
def test_an_output_that_is_deleted_between_the_check_and_the_write(tmp_path, monkeypatch, way, moment):
    """A write would create the output anew, or name its bucket."""
    place = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r").commit("a")
    (tmp_path / "out-new").write_text("x")
    make_folder = Location.make_folder

    def make(location: Location) -> str:
        folder = make_folder(location) if moment == "after it" else ""
        shutil.rmtree(tmp_path / "out")
        return folder or make_folder(location)

    monkeypatch.setattr(Location, "make_folder", make)
    with pytest.raises(OutputError, match="out: is gone, or is not on this machine"):
        way(place, b"x")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("create", [True, False])
def test_a_file_is_named_as_one(tmp_path, create):
    (tmp_path / "mine.yaml").write_text("dataset: d")
    with pytest.raises(OutputError, match=r"mine\.yaml: is a file; .*output\.uri of a config"):
        open_output(str(tmp_path / "mine.yaml"), create=create)
