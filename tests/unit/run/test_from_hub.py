"""A run over videos in a local hub's repository: a changed video is processed again, even at the same size."""

from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.hub_server import serving
from tests.fixtures.runs import make_config, run_here

PLACE = "datasets/lab/clips/raw/a.mp4"


def test_a_video_that_changed_and_kept_its_size_is_done_again(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    clip = (clips / "no_face.mp4").read_bytes() + (16).to_bytes(4, "big") + b"free"
    with serving() as hub:
        hub.files[PLACE], hub.lfs = clip + bytes(8), {PLACE}
        given = {
            "uris": ["hf://datasets/lab/clips/raw/*.mp4"],
            "storage_options": {"endpoint": hub.url, "token": False},
        }
        config = make_config([], tmp_path / "out", input=given)
        assert run_here(config).videos == {"ok": 1, "partial": 0, "failed": 0}
        assert run_here(config).status == "nothing_to_do"
        hub.files[PLACE] = clip + b"changed!"
        assert run_here(config).videos == {"ok": 1, "partial": 0, "failed": 0}
    rows = run_sql(connect(open_output(str(tmp_path / "out"))), "SELECT uri, content_id FROM videos").read_all()
    (row,) = rows.to_pylist()
    assert row["uri"] == f"hf://{PLACE}" and row["content_id"].startswith("blob:")
