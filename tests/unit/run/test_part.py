"""A run in independent parts, and the run that publishes what they have landed."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from click.testing import CliRunner

from featray.cli import main
from featray.errors import RunError, UsageError
from featray.identity import video_id
from featray.run.part import Part, land_part
from featray.store.storage import list_folders
from featray.tables.layout import Output, Partition, open_output
from featray.tables.query import connect, run_sql
from featray.tables.tombstones import Erasure, note_erasure
from featray.upkeep.verify import verify
from tests.fixtures.outputs import rows, tables_of
from tests.fixtures.runs import run_here, silent, small_config

pytestmark = pytest.mark.slow


@pytest.fixture
def config(short_clip, clips, small_network, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(short_clip, folder / "face.mp4")
    for name in "abc":
        shutil.copy(clips / "no_face.mp4", folder / f"{name}.mp4")
    return small_config([f"{folder}/"], tmp_path / "out", small_network)


def landed(config):
    output = open_output(config.output.uri)
    (release,) = list_folders(output.internal("landing", config.dataset))
    return {name.partition("-")[0] for name in list_folders(Partition(output, config.dataset, release).landing())}


def ids(config, *names):
    return {video_id(f"file://{config.input.uris[0]}{name}.mp4") for name in names}


def test_parts_beside_each_other_and_a_run_give_the_tables_of_one_run(config, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda i: land_part(config, Part(i, 3), silent()), (1, 2, 3)))
    assert sum(part.videos for part in parts) == 4 and landed(config) == ids(config, "face", "a", "b", "c")
    assert not list((tmp_path / "out").glob("[a-z]*")), "a part published"
    told = [CliRunner().invoke(main, [name, str(tmp_path / "out")]).stdout for name in ("publish", "status")]
    assert "4 videos landed, not published: run with the same config, without --part" in told[0]
    assert "4 videos begun or landed; `featray run` with the same config publishes them" in told[1]
    summary = run_here(config)
    assert summary.videos == {"ok": 4, "partial": 0, "failed": 0}
    assert summary.frames == sum(part.frames for part in parts) > 0
    calm = config.model_copy(update={"output": config.output.model_copy(update={"uri": str(tmp_path / "calm")})})
    run_here(calm)
    assert tables_of(tmp_path / "out") == tables_of(tmp_path / "calm")
    assert CliRunner().invoke(main, ["publish", str(tmp_path / "out")]).stdout == "nothing to finish\n"
    assert "waiting" not in CliRunner().invoke(main, ["status", str(tmp_path / "out")]).stdout
    assert verify(open_output(config.output.uri)).problems == []
    made = {(row["status"], row["videos_ok"]) for row in rows(tmp_path / "out", "runs")}
    assert made == {("done", None), ("done", 4)}  # of the parts, and of the run that published

    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    told = CliRunner().invoke(main, ["run", str(tmp_path / "my.yaml"), "--part", "1/1", "--log-line"])
    facts = json.loads(told.stdout)
    assert told.exit_code == 0 and (facts["part"], facts["videos"], facts["already_published"]) == ("1/1", 0, 4)


def test_what_a_part_has_landed_is_done_no_more_whatever_the_number_of_parts(config):
    first = land_part(config, Part(1, 2), silent())
    rest = [land_part(config, Part(i, 3), silent()) for i in (1, 2, 3)]
    whole = run_here(config)
    assert first.frames > 0 and first.frames + sum(part.frames for part in rest) == whole.frames


def test_a_part_that_is_stopped_leaves_what_has_landed_and_its_row(config, tmp_path):
    class Stopping(type(silent())):
        def update(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        land_part(config, Part(1, 1), Stopping(silent()._console, quiet=True))
    assert 0 < len(landed(config)) < 4
    rest = land_part(config, Part(1, 1), silent())
    whole = run_here(config)
    assert rest.videos == 4 and 0 < rest.frames < whole.frames
    assert sorted(row["status"] for row in rows(tmp_path / "out", "runs")) == ["done", "done", "interrupted"]
    assert verify(open_output(config.output.uri)).problems == []


def test_of_a_video_that_is_erased_meanwhile_nothing_stays(config):
    (gone,) = ids(config, "face")

    class Erasing(type(silent())):
        def update(self):
            erasure = Erasure("e1", gone, None, None, 1, None)
            note_erasure(open_output(config.output.uri), erasure)

    land_part(config, Part(1, 1), Erasing(silent()._console, quiet=True))
    assert landed(config) == ids(config, "a", "b", "c")
    assert run_here(config).videos["ok"] == 3


def test_a_part_in_which_all_fails_says_with_what(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number:03d}.mp4").write_bytes(b"no video")
    config = small_config([f"{folder}/"], tmp_path / "out", "synthetic:atto")
    with pytest.raises(RunError, match=r"(\d+) of \1 videos failed, .* most often with not_a_video"):
        land_part(config, Part(1, 1), silent())


def test_a_part_that_is_repeated_counts_the_failures_that_have_landed(config, tmp_path):
    """A scheduler that repeats a part must not be told that all is well."""
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    first = land_part(config, Part(1, 1), silent())
    again = land_part(config, Part(1, 1), silent())
    assert (first.videos, first.failed, again.videos, again.failed) == (5, 1, 5, 1) and again.frames == 0


def test_of_several_that_begin_an_output_at_once_none_is_refused(tmp_path, monkeypatch):
    from featray.tables import layout

    real = layout._is_occupied

    def late(output: Output, marker):
        monkeypatch.setattr(layout, "_is_occupied", real)
        open_output(str(tmp_path), create=True)  # another process is faster, and has published
        (tmp_path / "faces").mkdir()
        return real(output, marker)

    monkeypatch.setattr(layout, "_is_occupied", late)
    open_output(str(tmp_path), create=True)
    assert (
        run_sql(connect(open_output(str(tmp_path))), "SELECT count(*) AS n FROM videos").read_all()["n"][0].as_py() == 0
    )


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_what_is_no_part_is_refused(text, tmp_path, clips):
    with pytest.raises(UsageError, match="write it as I/N"):
        Part.parse(text)
    told = CliRunner().invoke(main, ["run", str(clips), "--out", str(tmp_path / "out"), "--part", text])
    assert told.exit_code == 2 and told.stderr.startswith(f"featray: --part {text}: write it as I/N")
    assert not (tmp_path / "out").exists()


def test_each_video_is_in_one_part():
    for video in (f"{n:016x}" for n in range(50)):
        assert sum(Part(i, 7).takes(video) for i in range(1, 8)) == 1
