"""A network that fails on some chips costs their unit, which says so; one that fails for the moment costs nothing."""

import numpy as np
import pytest

from featray.stages import Infer
from featray.tables.layout import open_output
from featray.tables.verify import verify
from tests.chain import run_here, small_config
from tests.unit.tables.test_erase import rows

EVERY, UNIT = 12, 16


class FailsOn:
    """An engine that fails on the chips of one call, whenever they come again, `times` times."""

    def __init__(self, engine, call, times):
        self._engine, self._call, self._times, self._calls, self._chip = engine, call, times, 0, None

    def __call__(self, chips):
        self._calls += 1
        if self._calls == self._call:
            self._chip = chips[0].copy()
        if self._chip is not None and len(chips) and np.array_equal(chips[0], self._chip) and self._times:
            self._times -= 1
            raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")
        return self._engine(chips)


@pytest.fixture
def run(inputs, small_network, tmp_path, monkeypatch):
    """Runs over one clip of three units, with a network that fails so many times on the second."""

    def start(times):
        begin = Infer._start

        def begin_failing(self, settings):
            begin(self, settings)
            self.engine = FailsOn(self.engine, 2, times)

        monkeypatch.setattr("tests.chain._ENGINES", {})
        monkeypatch.setattr(Infer, "_start", begin_failing)
        out = tmp_path / "out"
        config = small_config(
            [inputs / "anna.mp4"], out, small_network, decode={"sample": {"every": EVERY}, "unit_frames": UNIT}
        )
        return run_here(config), out

    return start


def test_a_unit_that_the_network_fails_on_every_time(run):
    summary, out = run(times=-1)
    assert summary.videos == {"ok": 0, "partial": 1, "failed": 0}
    (error,) = rows(out, "errors")
    assert (error["stage"], error["error_code"], error["attempt"]) == ("infer", "inference_failed", 3)
    assert error["message"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    units = {row["frame_index"] // (EVERY * UNIT) for row in rows(out, "faces")}
    assert units == {0, 2}
    assert verify(open_output(str(out))).problems == []


def test_a_failure_that_passes_leaves_no_trace(run):
    summary, out = run(times=1)
    assert summary.videos == {"ok": 1, "partial": 0, "failed": 0}
    assert rows(out, "errors") == []
    assert len(rows(out, "faces")) == 40
