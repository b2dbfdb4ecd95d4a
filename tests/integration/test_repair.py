"""What goes wrong with an output and its study later: files that are gone, folders that were moved."""

import re
import shutil

import pytest
from click.testing import CliRunner

from featray.cli import main
from tests.fixtures.outputs import tables_of

SETTINGS = ["--executor", "local", "--quiet", "--set", "decode.sample={every: 60}", "--set", "dataset=study"]


def featray(*words):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done


@pytest.fixture
def study(clips, tmp_path, small_network):
    """Return a folder of two clips, an output, and a function that runs the one into the other."""
    folder, out = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    for name in "ab":
        shutil.copy(clips / "face.mp4", folder / f"{name}.mp4")

    def run(folder=folder):
        done = featray("run", f"{folder}/", "--out", out, *SETTINGS, "--set", f"model.checkpoint={small_network}")
        assert done.exit_code == 0, done.output
        return done

    run()
    return folder, out, run


def test_a_lost_file_is_repaired_as_verify_says(study, caplog):
    _, out, run = study
    before = tables_of(out)
    next((out / "faces").rglob("*.parquet")).unlink()
    told = featray("verify", out)
    assert told.exit_code == 1 and "a commit names it, but it is missing" in told.stdout
    (line,) = (line for line in told.stdout.splitlines() if line.startswith("repair"))
    erased = featray("erase", out, "--video", "a.mp4")
    assert erased.exit_code == 1 and "does not exist; `featray verify` says what to do" in erased.stderr
    run()
    assert "its erasure was interrupted; finish it: featray erase" in caplog.text
    for record in re.findall(r"_featray/commits/\S+\.json", line):
        (out / record).unlink()
    (video_id,) = {found[1] for found in re.finditer(r"finish it: featray erase OUT --video (\w+)", caplog.text)}
    assert featray("erase", out, "--video", video_id).exit_code == 0
    assert featray("erase", out, "--video", video_id, "--allow-again").exit_code == 0
    run()
    assert featray("verify", out).exit_code == 0
    after = tables_of(out)
    assert {name: after[name] for name in ("faces", "frames", "videos")} == {
        name: before[name] for name in ("faces", "frames", "videos")
    }


def test_a_study_that_was_moved_is_told(study, tmp_path):
    folder, _, run = study
    folder.rename(tmp_path / "moved")
    told = run(tmp_path / "moved").output
    assert re.search(rf"moved    2 published videos, such as file://{folder}/[ab]\.mp4: not in the input", told), told
    assert "moved    " not in run(tmp_path / "moved").output
