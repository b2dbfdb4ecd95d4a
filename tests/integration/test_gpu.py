"""`detect.device: gpu` from config to tables, on both executors, with torch's CPU instead of a GPU.

With Ray it tests that decode workers get their share of a GPU, and that the decoding process can use it.
"""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from featray.cli import main
from featray.config import DecodeConfig, DetectConfig, EveryNth, InputConfig
from featray.errors import ConfigError
from featray.extract.child import ChildSettings
from featray.extract.isolation import IsolatedDecoder
from featray.extract.plan import UnitTask
from featray.model.gpu import STAND_IN
from featray.run.runner import run
from featray.sources.listing import list_videos
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.upkeep.recompute import recompute
from featray.video.units import Unit
from tests.fixtures.runs import make_config, run_here, silent

SECTIONS = {"detect": {"device": "gpu"}, "decode": {"sample": {"every": 48}}}


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setenv(STAND_IN, "cpu")


def rows(out, columns="* EXCLUDE (run_id, release)"):
    sql = f"SELECT {columns} FROM faces ORDER BY video_id, frame_index, face_index"
    return run_sql(connect(open_output(str(out))), sql).read_all().to_pylist()


def test_the_tables_are_the_cpus_but_for_rounding_and_stand_in_a_release_of_their_own(stand_in, face_clip, tmp_path):
    on_gpu = run_here(make_config([face_clip], tmp_path / "gpu", **SECTIONS))
    on_cpu = run_here(make_config([face_clip], tmp_path / "cpu", decode=SECTIONS["decode"]))
    assert on_gpu.videos == {"ok": 1, "partial": 0, "failed": 0} and on_gpu.faces == on_cpu.faces > 0
    assert on_gpu.job.release != on_cpu.job.release
    boxes = "frame_index, face_index, box_x1, box_y1, box_x2, box_y2, crop_x, crop_y, crop_side"
    for a, b in zip(rows(tmp_path / "gpu", boxes), rows(tmp_path / "cpu", boxes), strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    again = recompute(open_output(str(tmp_path / "gpu")), 3, seed=1, release=None)
    assert (again.checked, again.differing, again.unverifiable) == (3, [], []), "on a CPU, within the usual bounds"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"detect": {"device": "gpu"}}, "detect.device: gpu, but no GPU was found: .*set detect.device: cpu"),
        ({"decode": {"hwaccel": "cuda"}}, "decode.hwaccel: cuda, but no GPU was found: .*set decode.hwaccel: none"),
    ],
)
def test_a_run_without_a_gpu_ends_with_one_line_before_it_begins(face_clip, tmp_path, sections, line):
    with pytest.raises(ConfigError, match=f"^{line}") as raised:
        run_here(make_config([face_clip], tmp_path / "out", **sections))
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_plan_tries_on_the_cpu_what_a_gpu_will_do_and_says_so(clips, tmp_path):
    command = [
        "plan",
        str(clips / "face.mp4"),
        "--set",
        "detect.device=gpu",
        "--set",
        "model.checkpoint=synthetic:atto",
    ]
    command += ["--set", "decode.sample={every: 48}"]
    answer = CliRunner().invoke(main, [*command, "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["decoded_without_gpu"] is True


def test_on_ray_a_decode_worker_gets_its_share_and_the_tables_are_those_of_one_process(
    cluster, stand_in, face_clip, tmp_path
):
    import ray

    @ray.remote(num_gpus=0.05)
    def visible_to_child(path):
        (video,) = list_videos(InputConfig(uris=[path]))
        settings = ChildSettings(DecodeConfig(sample=EveryNth(every=96)), DetectConfig(device="gpu"), {})
        decoder = IsolatedDecoder(settings)
        (chunk,) = decoder.chunks(UnitTask(video, "key", "shard", Unit(0), 1, 1))
        environment = Path(f"/proc/{decoder.process_id}/environ").read_bytes().split(b"\0")
        decoder.close()
        return len(chunk.chips), b"CUDA_VISIBLE_DEVICES=0" in environment

    chips, visible = ray.get(visible_to_child.remote(str(face_clip)))
    assert chips > 0 and visible
    found = run(make_config([face_clip], tmp_path / "ray", **SECTIONS), silent())
    here = run_here(make_config([face_clip], tmp_path / "here", **SECTIONS))
    assert found.videos == here.videos == {"ok": 1, "partial": 0, "failed": 0}
    assert found.job.release == here.job.release
    assert rows(tmp_path / "ray") == rows(tmp_path / "here")
