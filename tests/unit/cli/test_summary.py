"""What a run and a plan say of files that they did not take."""

import io
import json
import shutil

from rich.console import Console

from featray.cli.plan import as_lines
from featray.cli.summary import as_log_line, print_summary
from featray.run.forecast import forecast
from tests.fixtures.runs import make_config, run_here


def test_files_that_are_passed_over_are_counted(tmp_path, clips):
    shutil.copyfile(clips / "no_face.mp4", tmp_path / "a.MP4")
    for name in ("._a.MP4", "a.[b]SRT", "b.srt", "c.srt"):
        (tmp_path / name).write_bytes(b"x")
    config = make_config([f"{tmp_path}/"], tmp_path.parent / "out-passed")
    said = "4 other files passed over: .srt 2, .[b]SRT 1, ._* 1"
    planned = forecast(config, sample=1)
    assert planned["passed_over"] == {".srt": 2, "._*": 1, ".[b]SRT": 1}
    assert any(said in line for line in as_lines(planned, config))
    summary = run_here(config)
    screen = Console(file=io.StringIO(), width=200)
    print_summary(summary, screen)
    assert said in screen.file.getvalue()
    assert json.loads(as_log_line(summary))["passed_over"] == planned["passed_over"]
