"""If a network always fails on some chips, their unit fails with an error; a temporary failure costs nothing."""

import subprocess
import sys
from importlib.resources import files

import imageio_ffmpeg
import numpy as np
import pytest

from featray.errors import RunError
from featray.graph.stages import Infer
from featray.tables.layout import open_output
from featray.upkeep.verify import verify
from tests.fixtures.outputs import rows
from tests.fixtures.runs import run_here, small_config

pytestmark = pytest.mark.slow

EVERY, UNIT = 2, 16


class FailsOn:
    """An engine that fails on the chips of one call, each time they come again, `times` times; or on all chips."""

    def __init__(self, engine, call, times, always=False):
        self._engine, self._call, self._times, self._calls, self._chip = engine, call, times, 0, None
        self._always = always

    def __call__(self, chips):
        self._calls += 1
        if self._calls == self._call:
            self._chip = chips[0].copy()
        if (len(chips) and self._always) or self._fails_on(chips):
            self._times -= 1
            raise RuntimeError("CUDA error: out of\nmemory")
        return self._engine(chips)

    def _fails_on(self, chips):
        return self._chip is not None and len(chips) and np.array_equal(chips[0], self._chip) and self._times

    def is_usable(self):
        return True

    def stop(self):
        self._engine.stop()


@pytest.fixture
def fails(monkeypatch):
    """Return a function that makes all networks opened afterwards fail."""
    begin = Infer._start

    def set_to_fail(**how):
        def begin_failing(self, settings):
            begin(self, settings)
            self.engine = FailsOn(self.engine, **how)

        monkeypatch.setattr(Infer, "_start", begin_failing)

    return set_to_fail


@pytest.fixture
def run(short_clip, small_network, tmp_path, fails):
    """Return a function that runs over one clip of three units; the network fails on the second, `times` times."""

    def start(times):
        fails(call=2, times=times)
        out = tmp_path / "out"
        decode = {"sample": {"every": EVERY}, "unit_frames": UNIT}
        config = small_config([short_clip], out, small_network, decode=decode)
        return run_here(config), out

    return start


def test_a_unit_that_the_network_fails_on_every_time(run):
    summary, out = run(times=-1)
    assert summary.videos == {"ok": 0, "partial": 1, "failed": 0}
    (error,) = rows(out, "errors")
    assert (error["stage"], error["error_code"], error["attempt"]) == ("infer", "inference_failed", 3)
    assert error["message"] == "RuntimeError: CUDA error: out of memory"
    units = {row["frame_index"] // (EVERY * UNIT) for row in rows(out, "faces")}
    assert units == {0, 2}
    assert verify(open_output(str(out))).problems == []


def test_a_failure_that_passes_leaves_no_trace(run):
    summary, out = run(times=1)
    assert summary.videos == {"ok": 1, "partial": 0, "failed": 0}
    assert rows(out, "errors") == []
    assert len(rows(out, "faces")) == 48


def five_faces(place):
    """Write sixty frames with five faces each: more than one chunk holds, and less than two."""
    face = "[0:v]crop=360:360:240:0,scale=128:128,split=5[a][b][c][d][e];[a][b][c][d][e]hstack=5"
    clip = str(files("featray") / "demo_clips" / "face.mp4")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", clip, "-filter_complex", face]
    subprocess.run([*command, "-frames:v", "60", str(place)], check=True)
    return place


def test_a_unit_whose_first_chunk_fails_and_whose_second_does_not(fails, small_network, tmp_path):
    """The landed rows of the second chunk must not keep the video from being published."""
    fails(call=1, times=-1)
    out = tmp_path / "out"
    clip = five_faces(tmp_path / "five.mp4")
    summary = run_here(small_config([clip], out, small_network, decode={"sample": "all"}))
    assert summary.videos == {"ok": 0, "partial": 0, "failed": 1}
    (error,) = rows(out, "errors")
    assert (error["error_code"], error["attempt"]) == ("inference_failed", 3)
    assert verify(open_output(str(out))).problems == []


def test_a_network_that_fails_on_everything_ends_the_run(fails, small_network, short_clip, tmp_path):
    """The first attempt ends it, not three attempts over the whole dataset."""
    fails(call=1, times=-1, always=True)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(22):
        (folder / f"{number:02d}.mp4").symlink_to(short_clip)
    config = small_config([f"{folder}/*.mp4"], tmp_path / "out", small_network, decode={"sample": {"every": 95}})
    says = r"20 of 20 videos failed, .* most often with inference_failed \(RuntimeError: CUDA error: out of memory\)"
    with pytest.raises(RunError, match=says):
        run_here(config)


def test_a_worker_whose_engine_is_of_no_more_use_ends(tmp_path):
    """The worker's process ends, so Ray starts another one; an illegal access on a GPU leaves such an engine behind."""
    script = """
import numpy as np
from featray.extract.chunks import Chunk
from featray.extract.plan import Outcome
from featray.graph.ray_internals import end_worker
from featray.graph.rows import chunk_row
from featray.graph.stages import Infer
from featray.schema import DETECTED_SCHEMA, FRAMES_SCHEMA

class Broken:
    def __call__(self, chips):
        raise RuntimeError("an illegal memory access was encountered")
    def is_usable(self):
        return False

infer = Infer.__new__(Infer)
infer._give_up, infer.checkpoint_config = end_worker, None
infer.engine = Broken()
nothing = np.zeros((0, 256, 256, 3), np.uint8), DETECTED_SCHEMA.empty_table(), FRAMES_SCHEMA.empty_table()
print(list(infer(chunk_row("{}", Chunk(0, True, *nothing, Outcome())))))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this worker ends" in done.stderr and "Traceback" not in done.stderr
