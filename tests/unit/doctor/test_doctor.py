"""The doctor confirms what works, gives a fix for what is missing, and shows no secrets."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from featray.cli import main
from featray.doctor import machine, software
from featray.doctor import reach as place
from featray.doctor.check import shortened
from featray.doctor.examine import examine
from featray.doctor.reach import reach


def _doctor(*arguments: str):
    return CliRunner().invoke(main, ["doctor", "--no-ray", *arguments])


@pytest.fixture(scope="module")
def healthy() -> dict[str, dict]:
    done = _doctor("--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["ok"] is True
    return {f"{check['group']}/{check['name']}": check for check in found["checks"]}


def test_what_is_here_is_found_to_work(healthy):
    for name in (
        "packages/av",
        "packages/torch",
        "decoding/PyAV decodes",
        "decoding/PyAV encodes",
        "decoding/a bundled clip",
        "detecting/the shipped detector",
        "engines/torch on the CPU",
        "engines/OpenVINO",
        "machine/memory",
        "machine/temporary files",
    ):
        assert healthy[name]["state"] == "ok" and not healthy[name]["fix"], name
    assert "h264" in healthy["decoding/PyAV decodes"]["found"]


def test_the_verdict_comes_first(tmp_path):
    """It is followed by the things to fix, then by all checks."""
    well, ill = _doctor().output.splitlines(), _doctor(str(tmp_path / "nowhere")).output.splitlines()
    assert well[:3] == [
        "ok: this machine can run featray",
        "",
        "All checks (-: needed only for extras):",
    ]
    assert ill[0] == "1 to fix before a run can work:" and ill[1].startswith("MISSING reach") and "->" in ill[2]
    assert ill[1] in ill[4:] and len(ill) > len(well)


def test_what_only_extras_need_does_not_fail(healthy, monkeypatch, tmp_path):
    assert all(check["fix"] for check in healthy.values() if check["state"] != "ok")
    monkeypatch.setenv("FEATRAY_CACHE", str(tmp_path))
    weights = list(software.weights())
    assert [check.state for check in weights] == ["absent"] * 3
    assert weights[0].fix == "featray models pull v2.8 --accept-license research-noncommercial"


def test_a_package_that_is_missing_or_of_another_version_is_named_with_its_mend():
    missing = software._package(Requirement("featray-needs-this>=2"), "missing", "pip install it")
    assert (missing.state, missing.found, missing.fix) == ("missing", "not installed", "pip install it")
    old = software._package(Requirement("click>=900"), "missing", "pip install it")
    assert old.state == "missing" and ">=900 is required" in old.found


def test_an_engine_that_breaks_or_computes_wrongly_is_found():
    def breaks():
        raise RuntimeError("Illegal\ninstruction")

    broken = software._computes("engine", "fix it", breaks)
    assert (broken.state, broken.found, broken.fix) == ("missing", "Illegal instruction", "fix it")
    wrong = software._computes("engine", "fix it", lambda: (False, "9.9"))
    assert (wrong.state, wrong.found, wrong.fix) == ("missing", "wrong results", "fix it")


def test_a_check_that_ends_badly_is_a_finding(monkeypatch):
    def breaks():
        yield from ()
        raise OSError("libsomething.so: cannot open")

    monkeypatch.setattr(software, "detecting", breaks)
    found = [check for check in examine((), {}, write=False, ray=False) if check.group == "detecting"]
    assert [check.state for check in found] == ["missing"] and "libsomething.so" in found[0].found


def test_places_are_listed_read_and_written_and_left_as_they_were(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"0123456789abcdefgh")
    found = list(reach(str(tmp_path), {}, write=True))
    assert [(check.name, check.state) for check in found] == [("list", "ok"), ("read", "ok"), ("write", "ok")]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_place_that_is_not_there_fails_and_no_secret_is_said(tmp_path):
    done = _doctor(str(tmp_path / "nowhere"), "--storage-option", "auto_mkdir=false")
    assert done.exit_code == 1
    assert "MISSING reach" in done.output and "does not exist" in done.output
    signed = "http://me:hunter2@127.0.0.1:9/folder/?X-Amz-Signature=abc"
    done = _doctor(signed, "s3://nowhere/", "--storage-option", 'secret="s3cr3t-k3y"', "--json")
    assert done.exit_code == 1
    for secret in ("hunter2", 'abc"', "s3cr3t-k3y", "X-Amz-Signature"):
        assert secret not in done.output


def test_a_ray_that_does_not_answer_is_a_finding(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(machine, "_START_RAY", "raise SystemExit('Could not connect')")
    (check,) = machine.ray()
    assert (check.state, check.found) == ("missing", "Could not connect") and "RAY_ADDRESS" in check.fix
    monkeypatch.setattr(machine, "_START_RAY", "import time; time.sleep(60)")
    monkeypatch.setattr(machine, "_START_SECONDS", 0.5)
    monkeypatch.setattr(machine, "_CLUSTER_SECONDS", 0.5)
    (check,) = machine.ray()
    assert (check.state, check.found) == ("missing", "no answer in 0.5 s")


def test_a_new_output_is_written_to_and_leaves_nothing(tmp_path):
    new = tmp_path / "deep" / "new"
    found = list(reach(str(new), {}, write=True))
    assert [(check.name, check.state) for check in found] == [("list", "ok"), ("write", "ok")]
    assert "does not exist yet, as a new output" in found[0].found
    assert list(tmp_path.iterdir()) == []
    (check,) = reach(str(new), {}, write=False)
    assert check.state == "missing" and "--write, if it is a new output" in check.fix


def test_an_object_in_a_subfolder_is_read(tmp_path):
    (tmp_path / "zurich" / "day").mkdir(parents=True)
    (tmp_path / "zurich" / "day" / "clip.mp4").write_bytes(b"0123456789abcdefgh")
    found = {check.name: check for check in reach(str(tmp_path), {}, write=False)}
    assert found["read"].found.endswith("zurich/day/clip.mp4: read its first 16 bytes")


def test_a_config_is_read_at_its_input_and_written_at_its_output(clips, tmp_path, monkeypatch):
    written = []
    write = place.write_bytes
    monkeypatch.setattr(place, "write_bytes", lambda target, data: [written.append(target.path), write(target, data)])
    (tmp_path / "c.yaml").write_text(
        f'dataset: test\ninput: {{uris: ["{clips}/*.mp4"]}}\noutput: {{uri: {tmp_path}/out}}\n'
    )
    done = _doctor("--config", str(tmp_path / "c.yaml"))
    assert done.exit_code == 0 and written == [], done.output
    assert "face.mp4: read its first 16 bytes" in done.output and "--write tries to write to it" in done.output
    done = _doctor("--config", str(tmp_path / "c.yaml"), "--write")
    assert done.exit_code == 0 and "out: wrote, read back and deleted an object" in done.output
    assert [path.rpartition("/")[0] for path in written] == [f"{tmp_path}/out"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
    assert _doctor("--config", str(tmp_path / "c.yaml"), "s3://bucket").exit_code == 2


def test_a_long_error_is_cut_between_words():
    assert shortened("two\n lines") == "two lines"
    assert shortened("failed " * 40) == f"{('failed ' * 22).strip()} ..."
    assert shortened("x" * 200) == f"{'x' * 160} ..."
