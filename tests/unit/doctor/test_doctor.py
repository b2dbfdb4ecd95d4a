"""The doctor confirms what works, gives a fix for what is missing, and shows no secrets."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from featray.cli import main
from featray.doctor import machine, software
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
