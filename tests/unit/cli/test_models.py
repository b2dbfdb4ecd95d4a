"""`featray models`: in its own process where the hub's client reads the environment, otherwise through click."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.model.checkpoint import read_checkpoint
from featray.model.known import KNOWN_CHECKPOINTS
from featray.model.source import SYNTHETIC
from featray.model.synth import SYNTHETIC_VARIANTS
from tests.fixtures.golden import HUB_FILE, HUB_SPEC
from tests.fixtures.hub_server import COMMIT

pytestmark = pytest.mark.slow

OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def models(cache, monkeypatch):
    """Return a function that runs `featray models ...` in this process."""
    monkeypatch.setenv("FEATRAY_CACHE", str(cache))
    return lambda *arguments: CliRunner().invoke(main, ["models", *map(str, arguments)])


@pytest.fixture
def pull(hub, cache):
    """Return a function that runs `featray models pull ...` in its own process, against the local hub."""

    def run(*arguments, **environment):
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache / "home"), "FEATRAY_CACHE": str(cache)}
        command = [sys.executable, "-m", "featray", "models", "pull", *arguments]
        environment = {**os.environ, **own, **environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    return run


def facts(text):
    """Return the printed `name value` lines; a name that occurs several times has a list of values."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value.strip())
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def check_refused(done, code, *parts):
    status, printed = (done.returncode, done.stdout) if hasattr(done, "returncode") else (done.exit_code, done.stdout)
    assert status == code, done.stderr
    assert printed == ""
    assert done.stderr.startswith("featray: ")
    assert done.stderr.count("\n") == 1, "one line, no traceback"
    for part in parts:
        assert part in done.stderr


def test_help_is_there_and_loads_nothing_heavy():
    code = (
        "import sys; from featray.cli import main; main(standalone_mode=False); "
        "assert not {'torch', 'ray', 'numpy', 'pydantic', 'pyarrow'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, "models", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("list", "pull", "inspect", "check", "synth"):
        assert f"  {name} " in printed


@pytest.mark.parametrize("name", ["list", "pull", "inspect", "check", "synth"])
def test_help_has_an_example(models, name):
    assert f"  featray models {name}" in models(name, "--help").stdout


# pull


def test_pull_says_what_it_pulled(pull, atto, cache):
    done = pull(HUB_SPEC)
    assert done.returncode == 0, done.stderr
    found = facts(done.stdout)
    assert (found["sha256"], found["revision"]) == (atto.sha256, COMMIT)
    assert found["path"].startswith(str(cache))
    assert read_checkpoint(Path(found["path"])).sha256 == atto.sha256


def test_pull_goes_on_after_a_dropped_connection(models, hub, atto):
    hub.drop_after_bytes = 15_000_000
    assert facts(models("pull", HUB_SPEC).stdout)["sha256"] == atto.sha256
    assert any("bytes=" in request for request in hub.requests)


def test_interrupted_and_corrupted_pulls_leave_nothing(hub, models):
    hub.short = True
    check_refused(models("pull", HUB_SPEC), 1, HUB_SPEC)
    hub.short, hub.corrupt = False, True
    check_refused(models("pull", HUB_SPEC), 1, HUB_SPEC, "corrupt")
    assert "Nothing pulled" in models("list").stdout


def test_pulled_file_is_used_offline(pull, hub):
    check_refused(pull(HUB_SPEC, **OFFLINE), 1, HUB_SPEC, "featray models pull")
    first = pull(HUB_SPEC)
    hub.requests.clear()
    assert pull(HUB_SPEC, **OFFLINE).stdout == first.stdout
    assert hub.requests == []


def test_pull_is_held_to_revision_and_hash(models, hub, atto):
    assert facts(models("pull", HUB_SPEC, "--revision", COMMIT, "--sha256", atto.sha256).stdout)["revision"] == COMMIT
    assert all(f"/{COMMIT}/" in request for request in hub.requests if "/resolve/" in request)
    check_refused(models("pull", HUB_SPEC, "--sha256", "0" * 64), 1, "0" * 64, atto.sha256)
    check_refused(models("pull", HUB_SPEC, "--sha256", "abc"), 2, "sha256")
    check_refused(models("pull", HUB_SPEC, "--revision", "no-such-branch"), 1, "no such file")


@pytest.mark.parametrize("by_name", [True, False])
def test_published_weights_need_consent(by_name, models, hub, atto):
    known = KNOWN_CHECKPOINTS[0]
    spec = known.name if by_name else known.spec
    hub.files[known.spec.removeprefix("hf://")] = hub.files[HUB_FILE]
    refused = models("pull", spec)
    check_refused(refused, 2, "research, non-commercial", "--accept-license research-noncommercial")
    assert all(words in refused.stderr for words in ("CC BY-NC 4.0", "ConvNeXt-V2", "Gaze360", "ETH-XGaze", "img2pose"))
    check_refused(models("pull", spec, "--accept-license", "MIT"), 2, "research-noncommercial")
    assert hub.requests == []
    assert facts(models("pull", spec, "--accept-license", "research-noncommercial").stdout)["sha256"] == atto.sha256


def test_only_hub_files_can_be_pulled(models, atto):
    check_refused(models("pull", atto.path), 2, "hf://owner/repository/file.safetensors")
    check_refused(models("pull", "hf://lab/small.safetensors"), 2, "hf://lab/small.safetensors")
    check_refused(models("pull", "v2.9"), 2, "v2.9", "v2.8, v2.7, v2.5")


# list


def test_list_before_and_after_a_pull(hub, models, atto):
    before = models("list").stdout
    for known in KNOWN_CHECKPOINTS:
        assert known.spec in before
    assert before.count("license research-noncommercial; not pinned; recorded on first pull; not pulled") == 3
    assert "Nothing pulled" in before
    assert models("pull", HUB_SPEC).exit_code == 0
    after = models("list").stdout
    assert f"asked for main, pinned to revision {COMMIT}" in after
    assert f"sha256 {atto.sha256}; license MIT" in after
    found = json.loads(models("list", "--json").stdout)
    assert [one["name"] for one in found["published"]] == [
        "v2.8",
        "v2.7",
        "v2.5",
        "retinaface-r34",
        "retina-face",
        "arcface-r50",
    ]
    assert not any(one["pulled"] for one in found["published"])
    (pulled,) = found["pulled"]
    assert (pulled["spec"], pulled["revision"], pulled["sha256"]) == (HUB_SPEC, COMMIT, atto.sha256)


def test_list_names_a_damaged_entry(hub, models, cache):
    models("pull", HUB_SPEC)
    (record,) = cache.glob("checkpoints/*/*/small.json")
    record.write_text("[]")
    check_refused(models("list"), 1, str(record.parent), "damaged")


# inspect


@pytest.mark.parametrize(
    ("variant", "heads"),
    [
        ("atto", {"action units: 20, without MEFL", "gaze: plain", "blendshapes: 52"}),
        ("v28", {"gaze: eye regions, 6D pose, hidden layer of 256, 90 bins", "emotions: 7, with valence and arousal"}),
        ("v23mefl", {"action units: 24, with MEFL", "mesh: 478 vertices in pixels of the 224-pixel image"}),
    ],
)
def test_inspect_says_which_heads_there_are(models, variant, heads, checkpoint_of):
    found = facts(models("inspect", checkpoint_of(variant).path).stdout)
    assert heads <= set(found["head"])
    assert found["license"] == "MIT"
    assert found["trained"].startswith("no;")
    assert f"n_au: {SYNTHETIC_VARIANTS[variant].n_au}" in found["config"]
    assert "use_head_v3: true" in found["config"]
    assert "revision" not in found


def test_inspect_synthetic(models, atto):
    found = facts(models("inspect", f"{SYNTHETIC}:atto").stdout)
    assert (found["sha256"], found["license"]) == (atto.sha256, "MIT")


def test_inspect_a_file_and_what_was_pulled(hub, models, atto):
    here = facts(models("inspect", atto.path).stdout)
    assert here["sha256"] == atto.sha256
    assert here["parameters"] == f"{atto.num_parameters:,}"
    check_refused(models("inspect", HUB_SPEC), 1, "not pulled at 'main' yet", f"featray models pull {HUB_SPEC}")
    assert hub.requests == []
    models("pull", HUB_SPEC)
    pulled = facts(models("inspect", HUB_SPEC).stdout)
    assert pulled["revision"] == COMMIT
    assert pulled["config"] == here["config"]
    check_refused(models("inspect", HUB_SPEC, "--revision", COMMIT), 1, "not pulled at")


@pytest.mark.parametrize("known", KNOWN_CHECKPOINTS, ids=lambda known: known.name)
def test_inspect_tells_what_is_known_and_by_whom(known, hub, models):
    hub.files[known.spec.removeprefix("hf://")] = hub.files[HUB_FILE]
    assert models("pull", known.name, "--accept-license", known.license).exit_code == 0
    found = facts(models("inspect", known.name).stdout)
    assert found == facts(models("inspect", known.spec).stdout)
    assert found["recognised"] == f"{known.name}, by its name on the hub"
    assert found["conventions"] == known.conventions.text
    assert len(found["meaning"]) == len(known.facts) and len(found["rests"]) == len(known.licence_facts)
    assert all(line.endswith("]") and "py-feat" in line for line in (*found["meaning"], *found["rests"]))
    assert ("pose_pitch" in found.get("unusable", "")) == (known.name == "v2.5")


def test_inspect_what_is_none(models, tmp_path, atto):
    (tmp_path / "pickle.safetensors").write_bytes(b"PK\x03\x04 not weights")
    check_refused(models("inspect", tmp_path / "pickle.safetensors"), 1, "pickle")
    check_refused(models("inspect", tmp_path / "none.safetensors"), 1, "no such checkpoint file")
    check_refused(models("inspect", f"{SYNTHETIC}:v99"), 2, "v99")
    check_refused(models("inspect", atto.path, "--revision", "main"), 2, "--revision")


# synth


def test_synth_variant_and_seed(models, tmp_path, atto):
    done = models("synth", tmp_path / "a.safetensors", "--variant", "atto")
    assert facts(done.stdout)["sha256"] == atto.sha256
    models("synth", tmp_path / "b.safetensors", "--variant", "atto", "--seed", 1)
    other = read_checkpoint(tmp_path / "b.safetensors")
    assert (other.config, other.weights_trained) == (atto.config, False)
    assert other.sha256 != atto.sha256


@pytest.mark.parametrize("as_file", [False, True])
def test_synth_from_a_config(models, tmp_path, as_file):
    config = json.dumps({"use_head_v3": True, "backbone": "convnextv2_atto", "afg_channels": 32, "mefl_channels": 32})
    (tmp_path / "config.json").write_text(config)
    given = tmp_path / "config.json" if as_file else config
    assert models("synth", tmp_path / "a.safetensors", "--config", given).exit_code == 0
    made = read_checkpoint(tmp_path / "a.safetensors")
    assert (made.config.afg_channels, made.config.n_au) == (32, 24)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["a.pt"], ["a.pt", ".safetensors"]),
        (["a.safetensors", "--variant", "v99"], ["v99", "v25, v28"]),
        (["a.safetensors", "--config", "{}"], ["--config", "use_head_v3"]),
        (["a.safetensors", "--config", "{"], ["--config", "not JSON"]),
        (["a.safetensors", "--config", '{"use_head_v3": true, "n_mesh": 1000000000}'], ["n_mesh"]),
        (["a.safetensors", "--config", "no-such-file"], ["--config", "no-such-file"]),
        (["a.safetensors", "--config", "{}", "--variant", "v25"], ["--variant and --config"]),
    ],
)
def test_synth_refuses(models, tmp_path, arguments, parts):
    check_refused(models("synth", tmp_path / arguments[0], *arguments[1:]), 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_synth_overwrites_nothing(models, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"precious")
    check_refused(models("synth", tmp_path / "mine.safetensors"), 2, "exists already")
    assert (tmp_path / "mine.safetensors").read_bytes() == b"precious"
