"""`featray plan`, compared with the run that it predicts."""

import json

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.cli.plan import as_lines
from featray.run.forecast import forecast
from featray.run.tally import Tally
from tests.fixtures.hub_server import point_client_to, serving
from tests.fixtures.runs import make_config, run_here

SAMPLE = "{every: 8}"


@pytest.fixture(scope="module")
def both(clips, tmp_path_factory):
    """Return the prediction, the run's summary, seconds by stage and output folder, and a prediction after the run."""
    folder = tmp_path_factory.mktemp("forecast")
    out = folder / "out"
    (folder / "c.yaml").write_text(
        f'dataset: test\ninput: {{uris: ["{clips}/*.mp4"]}}\noutput: {{uri: {out}}}\n'
        f"decode: {{sample: {SAMPLE}}}\nmodel: {{checkpoint: 'synthetic:atto'}}\n"
    )
    command = ["plan", str(folder / "c.yaml"), "--json", "--price-cpu-hour", "36", "--price-gpu-hour", "100"]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0, answer.output
    assert not out.exists(), "planning changes nothing"
    receipts = []
    with pytest.MonkeyPatch.context() as patch:
        take = Tally.take
        patch.setattr(Tally, "take", lambda self, receipt: [receipts.append(receipt), take(self, receipt)][1])
        summary = run_here(make_config([f"{clips}/*.mp4"], out, decode={"sample": {"every": 8}}))
    seconds = {}
    for receipt in receipts:
        for stage, spent in json.loads(receipt.seconds).items():
            seconds[stage] = seconds.get(stage, 0) + spent
    again = CliRunner().invoke(main, command)
    return json.loads(answer.output), summary, seconds, out, json.loads(again.output)


def test_videos_frames_faces_and_bytes_are_foreseen(both):
    found, summary, _, out, _ = both
    assert (found["videos"], found["already_published"]) == (2, 0)
    assert found["release"] == summary.job.release
    assert found["units"] == 2
    assert found["frames"] == pytest.approx(summary.frames, rel=0.3)
    assert found["faces"] == pytest.approx(summary.faces, rel=0.3)
    written = sum(path.stat().st_size for path in out.rglob("*.parquet") if "runs" not in path.parts)
    assert found["output_bytes"] == pytest.approx(written, rel=0.3)
    assert 0.05 < found["memory_gib"]["decode_worker"] < 4 and 0.3 < found["memory_gib"]["infer_worker"] < 4


def test_cpu_time_is_reckoned_by_stage(both, report):
    found, _, seconds, _, _ = both
    foreseen = {stage: 3600 * hours for stage, hours in found["cpu_hours_by_stage"].items()}
    assert set(seconds) | {"plan"} == set(foreseen)
    # No bound is asserted: two inference workers and other processes on this machine share its caches and its cores.
    texts = [f"{stage} {foreseen[stage]:.2f} for {spent:.2f} s" for stage, spent in sorted(seconds.items())]
    report(f"featray plan, CPU seconds foreseen and spent: {', '.join(texts)}")
    assert found["gpu_hours"] == 0
    assert found["cost"]["total"] == pytest.approx(36 * found["cpu_hours"], abs=1e-3)


def test_the_time_is_that_of_this_computer_and_of_what_the_config_names(both):
    found, *_ = both
    (here,) = found["places"]
    assert here["place"] == "this computer" and here["cpus"] >= 1
    assert here["hours"] == pytest.approx(found["cpu_hours"] / here["cpus"], abs=2e-6)


def test_weights_that_were_not_pulled_are_stood_in_for_and_not_fetched(clips, tmp_path, monkeypatch):
    """The hub has them, but receives no request."""
    spec = "hf://py-feat/face_multitask_v2/face_multitask_v2.safetensors"
    agreed = ["--set", "model.accept_license=research-noncommercial"]
    cluster = ["--set", "cluster.cpus=72", "--set", "cluster.gpus=4"]
    command = ["plan", str(clips / "no_face.mp4"), "--set", f"model.checkpoint={spec}", *cluster]
    with serving() as hub:
        point_client_to(hub.url, monkeypatch)
        hub.files[spec.removeprefix("hf://")] = b"not looked at"
        refused = CliRunner().invoke(main, command)
        assert refused.exit_code == 2 and "set model.accept_license" in refused.stderr
        found = CliRunner().invoke(main, [*command, *agreed])
    assert found.exit_code == 0, found.output
    assert hub.requests == []
    assert "release  unknown without its weights" in found.stdout
    assert f"weights  {spec} has not been pulled, and plan downloads nothing: synthetic:v25" in found.stdout
    assert "on the 72 CPUs and 4 GPUs of the config" in found.stdout


def test_what_is_published_is_not_planned_again(both):
    *_, again = both
    assert (again["videos"], again["already_published"], again["frames"], again["faces"]) == (0, 2, 0, 0)
    assert (again["cpu_hours"], again["output_bytes"]) == (0, 0)


def test_other_settings_are_said_to_make_a_new_release(both):
    """By `plan` and by `run`; the release that is there is not called new."""
    _, summary, _, out, again = both
    assert again["other_releases"] == []
    config = str(out.parent / "c.yaml")
    said = f"new release (the output has {summary.job.release}): all videos are processed again"
    for other in ("decode.sample={every: 12}", "output.tables=[faces]", "input.path_fields='{name}'"):
        planned = CliRunner().invoke(main, ["plan", config, "--sample", "1", "--set", other])
        assert said in planned.output, other
        assert "videos   2 to do" in planned.output
    ran = CliRunner().invoke(main, ["run", config, "--executor", "local", "--set", "dataset=another"])
    assert ran.exit_code == 0 and "new release" not in ran.output
    ran = CliRunner().invoke(main, ["run", config, "--executor", "local", "--set", "decode.sample={every: 24}"])
    assert ran.exit_code == 0 and said in ran.output


def test_synthetic_weights_are_said_to_carry_no_meaning(both):
    found, _, _, out, _ = both
    assert found["weights_trained"] is False
    planned = CliRunner().invoke(main, ["plan", str(out.parent / "c.yaml")])
    assert "weights  synthetic (random); facial numbers will carry no meaning" in planned.output


def test_what_was_not_measured_is_left_out(both):
    """No video is left: no memory was measured. No GPU is used: it has no price."""
    *_, out, _ = both
    planned = CliRunner().invoke(main, ["plan", str(out.parent / "c.yaml"), "--price-gpu-hour", "100"])
    assert planned.exit_code == 0 and "0.0 GiB" not in planned.output
    assert "cost     0.00 (CPU 0.00)" in planned.output


def test_erased_videos_are_left_out(clips, tmp_path):
    config = make_config([f"{clips}/*.mp4"], tmp_path / "out", decode={"sample": {"every": 24}})
    run_here(config)
    erased = CliRunner().invoke(main, ["erase", str(tmp_path / "out"), "--video", f"{clips}/no_face.mp4"])
    assert erased.exit_code == 0, erased.output
    found = forecast(config)
    assert (found["videos"], found["already_published"], found["erased"]) == (0, 1, 1)
    assert "         1 video of the input erased, left out" in list(as_lines(found, config))
    other = config.model_copy(update={"output": config.output.model_copy(update={"tables": ["faces"]})})
    assert (forecast(other, sample=1)["videos"], run_here(other).videos["ok"]) == (1, 1)
