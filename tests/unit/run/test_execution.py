"""When a run gives up."""

import pytest

from featray.errors import RunError
from tests.fixtures.runs import make_config, run_here


def test_a_run_in_which_all_fails_ends_and_says_with_what(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number:03d}.mp4").write_bytes(b"no video")
    words = r"(\d+) of \1 videos failed, more than .* \(0\.05\), most often with not_a_video \("
    with pytest.raises(RunError, match=words):
        run_here(make_config([f"{folder}/*.mp4"], tmp_path / "out"))
