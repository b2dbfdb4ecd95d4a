"""Videos in a repository of the Hugging Face hub, read by `HfFileSystem` from a server that speaks its protocol."""

import pytest

from featray.config import InputConfig, parse_config
from featray.errors import AccessDenied, ConfigError, ErrorCode, OutputError, StorageError, Unreachable
from featray.extract.plan import open_source
from featray.sources.entry import content_id
from featray.sources.listing import list_videos
from featray.sources.places import place_of
from featray.store.exclusive import create_bytes
from featray.store.failures import unreadable_code
from featray.store.location import locate
from featray.store.storage import write_bytes
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.tables.status import read_status
from tests.fixtures.handmade import write_output
from tests.fixtures.hub_server import serving

REPOSITORY = "datasets/lab/clips"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serving() as hub:
        hub.files = {f"{REPOSITORY}/{name}": name.encode() * 1000 for name in ("raw/a.mp4", "raw/b.mp4", "raw/x/c.mp4")}
        hub.files |= {f"{REPOSITORY}/README.md": b"# Clips", f"{REPOSITORY}/raw/b.txt": b"no video"}
        hub.older["v1"] = {f"{REPOSITORY}/raw/a.mp4": b"as it was"}
        yield hub


def listed(hub, uri, **options):
    config = InputConfig(uris=[uri], storage_options={"endpoint": hub.url, "token": False, **options})
    return list(list_videos(config))


@pytest.mark.parametrize(
    "uri, names",
    [
        (f"hf://{REPOSITORY}", ["raw/a.mp4", "raw/b.mp4", "raw/x/c.mp4"]),
        (f"hf://{REPOSITORY}/raw/*.mp4", ["raw/a.mp4", "raw/b.mp4"]),
        (f"hf://{REPOSITORY}/**/c.mp4", ["raw/x/c.mp4"]),
        (f"hf://{REPOSITORY}/raw/b.mp4", ["raw/b.mp4"]),
    ],
)
@pytest.mark.parametrize("page", [2, 1000])
def test_files_are_found_and_read(hub, uri, names, page):
    hub.page = page
    hub.lfs = {f"{REPOSITORY}/raw/b.mp4"}
    videos = listed(hub, uri)
    assert [video.uri for video in videos] == [f"hf://{REPOSITORY}/{name}" for name in names]
    for video, name in zip(videos, names, strict=True):
        with open_source(video, {"endpoint": hub.url, "token": False}) as file:
            file.seek(len(name))
            assert file.read() == hub.files[f"{REPOSITORY}/{name}"][len(name) :]


@pytest.mark.parametrize("lfs", [False, True])
def test_a_changed_file_of_the_same_size_is_another(hub, lfs):
    """This also holds in one process that has listed the folder before."""
    place = f"{REPOSITORY}/raw/a.mp4"
    hub.lfs = {place} if lfs else set()
    (before,) = listed(hub, f"hf://{place}")
    assert listed(hub, f"hf://{place}")[0].content_id == before.content_id
    hub.files[place] = bytes(reversed(hub.files[place]))
    (after,) = listed(hub, f"hf://{place}")
    assert after.size_bytes == before.size_bytes and after.content_id != before.content_id
    assert before.content_id.startswith("blob:")


def test_a_bucket_of_the_hub_knows_xet_hashes_alone():
    assert content_id({"size": 3, "xet_hash": "ab", "mtime": 1}) == "xet:ab:3"


def test_a_revision_is_part_of_the_name_and_is_what_is_read(hub):
    (video,) = listed(hub, f"hf://{REPOSITORY}@v1/raw/*.mp4")
    assert video.uri == f"hf://{REPOSITORY}@v1/raw/a.mp4"
    with open_source(video, {"endpoint": hub.url, "token": False}) as file:
        assert file.read() == b"as it was"


def test_what_cannot_be_had_is_one_line(hub):
    for uri in (f"hf://{REPOSITORY}@v9/raw/", "hf://datasets/lab/none/*.mp4", f"hf://{REPOSITORY}/none/"):
        with pytest.raises(ConfigError, match="nothing found at hf://"):
            listed(hub, uri)
    with pytest.raises(StorageError, match="names no repository; write hf://datasets/OWNER/NAME"):
        listed(hub, "hf://datasets/lab")
    hub.private.add(REPOSITORY)
    with pytest.raises(AccessDenied, match="set HF_TOKEN") as caught:
        listed(hub, f"hf://{REPOSITORY}/raw/")
    assert unreadable_code(caught.value) == ErrorCode.ACCESS_DENIED
    assert listed(hub, f"hf://{REPOSITORY}/raw/", token="hf_of_somebody")
    with pytest.raises(Unreachable, match="does not answer"):
        listed(hub, f"hf://{REPOSITORY}/raw/", endpoint="http://127.0.0.1:9")


def test_tables_are_not_written_to_the_hub(hub):
    options = {"endpoint": hub.url, "token": "hf_of_somebody"}
    for write in (create_bytes, write_bytes):
        with pytest.raises(OutputError, match=r"run `hf upload`"):
            write(locate(f"hf://{REPOSITORY}/out/x", options), b"x")
    with pytest.raises(OutputError, match=r"hf://datasets/lab/new.*run `hf upload`"):
        open_output(f"hf://{REPOSITORY.replace('clips', 'new')}/out", options, create=True)
    assert not [request for request in hub.requests if not request.startswith("GET")]


def test_tables_on_the_hub_are_read(hub, tmp_path):
    rows = write_output(tmp_path / "out")
    files = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    hub.files = {f"{REPOSITORY}/{path.relative_to(tmp_path)}": path.read_bytes() for path in files}
    output = open_output(f"hf://{REPOSITORY}/out", {"endpoint": hub.url, "token": False})
    assert read_status(output)["videos"] == {"ok": 2, "partial": 2, "failed": 1}
    found = run_sql(connect(output, tables=["faces"]), "SELECT count(*) AS n FROM faces").read_all().to_pylist()
    assert found == [{"n": len(rows["faces"])}]


def test_options_are_for_the_repository_that_the_config_names():
    """A manifest may name another repository, which gets no token."""
    assert place_of(f"hf://{REPOSITORY}@v1/raw/a.mp4") == place_of(f"hf://{REPOSITORY}/b.mp4")
    assert place_of(f"hf://{REPOSITORY}/a.mp4") != place_of("hf://datasets/lab/other/a.mp4")
    assert place_of("hf://lab/model/a.mp4") != place_of("hf://lab/other/a.mp4")
    parse_config({"dataset": "d", "input": {"uris": [f"hf://{REPOSITORY}@v1/"]}, "output": {"uri": "out"}})
