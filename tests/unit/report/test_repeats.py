"""A report gives the number of frames that repeat the one before, if there are any."""

from pathlib import Path

import pytest

from featray.report.page import ReportSettings, write_report
from featray.tables.layout import open_output
from tests.fixtures.handmade import write_output
from tests.fixtures.page import Page


@pytest.mark.parametrize("dataset", ["one", "two"])
def test_frames_that_repeat_are_counted(tmp_path: Path, dataset: str) -> None:
    frames = [row for row in write_output(tmp_path / "out")["frames"] if row["dataset"] == dataset]
    target = tmp_path / "report.html"
    write_report(open_output(str(tmp_path / "out")), str(target), ReportSettings(dataset=dataset, thumbnails=False))
    share = sum(row["repeats"] is not None for row in frames) / len(frames)
    assert 0.05 < share < 0.15
    assert Page(target).by_id["n-repeats"] == f"{100 * share:.1f} %"
