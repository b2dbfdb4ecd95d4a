"""Sources of checkpoints. The hub's real client talks to a local server that implements its protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from featray.errors import ConfigError, LicenseError, ModelError, WeightsMissing
from featray.model.known import KNOWN_CHECKPOINTS
from featray.model.source import find_stand_in, resolve_checkpoint
from featray.model.synth import SYNTHETIC_VARIANTS
from tests.fixtures.golden import HUB_FILE as FILE
from tests.fixtures.golden import HUB_SPEC as SPEC
from tests.fixtures.hub_server import COMMIT, point_client_to


def resolve(spec, cache_dir, *, revision=None, sha256=None, accept_license=None):
    return resolve_checkpoint(
        spec, revision=revision, sha256=sha256, accept_license=accept_license, cache_dir=cache_dir
    )


def refused(call, kind, *parts):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return caught.value


def left_behind(cache):
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


# synthetic


def test_synthetic_is_made_once(cache):
    first = resolve("synthetic:atto", cache)
    made_at = first.path.stat().st_mtime_ns
    assert first.name == "synthetic-atto-seed0"
    assert first.weights_trained is False
    assert resolve("synthetic:atto", cache) == first
    assert first.path.stat().st_mtime_ns == made_at


def test_synthetic_default_is_v25(cache):
    assert resolve("synthetic", cache).name == "synthetic-v25-seed0"


def test_unknown_synthetic_variant(cache):
    refused(lambda: resolve("synthetic:v99", cache), ConfigError, "'v99'", "v25")


def test_processes_that_make_it_together(cache, atto):
    code = (
        "import sys, pathlib; from featray.model.source import resolve_checkpoint; "
        "print(resolve_checkpoint('synthetic:atto', revision=None, sha256=None, accept_license=None, "
        "cache_dir=pathlib.Path(sys.argv[1])).sha256); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(cache)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=60)[0].strip() for process in processes} == {atto.sha256}
    assert [path.name for path in left_behind(cache)] == ["synthetic-atto-seed0.safetensors"]


# local files


def test_local_file(atto, cache):
    assert resolve(str(atto.path), cache) == atto
    assert resolve(str(atto.path), cache, sha256=atto.sha256.upper()) == atto


def test_local_file_with_another_hash(atto, cache):
    refused(lambda: resolve(str(atto.path), cache, sha256="0" * 64), ModelError, atto.sha256, "0" * 64)


def test_local_file_that_is_not_there(cache):
    refused(lambda: resolve("/nowhere/model.safetensors", cache), ModelError, "/nowhere/model.safetensors")


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64])
def test_malformed_hash(sha256, cache):
    refused(lambda: resolve("synthetic:atto", cache, sha256=sha256), ConfigError, "model.sha256")


# the hub


@pytest.mark.parametrize(
    "spec",
    [
        "hf://",
        "hf://lab/small.safetensors",
        "hf://lab/faces/",
        "hf://lab/faces/../../etc/x.safetensors",
        "hf://lab/faces/small.safetensors?x=1",
        "hf://lab/faces/model.pt",
        "s3://bucket/model.safetensors",
    ],
)
def test_malformed_specs(spec, cache):
    refused(lambda: resolve(spec, cache), ConfigError, "model.checkpoint")


@pytest.mark.parametrize("revision", ["", "x" * 300, "a\nb"])
def test_malformed_revisions(revision, cache):
    refused(lambda: resolve(SPEC, cache, revision=revision), ConfigError, "model.revision")


def test_pull_records_what_it_pulled(hub, cache, atto):
    checkpoint = resolve(SPEC, cache)
    assert checkpoint.sha256 == atto.sha256
    assert checkpoint.revision == COMMIT
    assert checkpoint.name == "small"
    record = json.loads(checkpoint.path.with_suffix(".json").read_text())
    assert record["repo"] == "lab/faces"
    assert record["file"] == "small.safetensors"
    assert record["requested_revision"] == "main"
    assert record["revision"] == COMMIT
    assert record["sha256"] == atto.sha256
    assert sorted(path.name for path in left_behind(cache)) == ["small.json", "small.safetensors"]


def test_second_time_needs_no_network(hub, cache):
    first = resolve(SPEC, cache)
    hub.requests.clear()
    hub.status = 500
    assert resolve(SPEC, cache) == first
    assert hub.requests == []


def test_branch_stays_what_it_was_when_pulled(hub, cache):
    resolve(SPEC, cache)
    hub.revisions["main"] = "f" * 40
    assert resolve(SPEC, cache).revision == COMMIT


def test_revision_is_asked_for(hub, cache):
    hub.revisions["v2/beta"] = "f" * 40
    hub.revisions["v2%2Fbeta"] = "f" * 40
    hub.revisions["f" * 40] = "f" * 40
    assert resolve(SPEC, cache, revision="v2/beta").revision == "f" * 40
    assert resolve(SPEC, cache, revision=COMMIT).revision == COMMIT


def test_file_in_a_folder_of_the_repository(hub, cache, atto):
    hub.files["lab/faces/old/small.safetensors"] = hub.files[FILE]
    assert resolve("hf://lab/faces/old/small.safetensors", cache).sha256 == atto.sha256


def test_hash_is_held_to(hub, cache, atto):
    refused(lambda: resolve(SPEC, cache, sha256="0" * 64), ModelError, "0" * 64, atto.sha256)
    assert left_behind(cache) == []
    resolve(SPEC, cache, sha256=atto.sha256)
    refused(lambda: resolve(SPEC, cache, sha256="0" * 64), ModelError, "0" * 64)


@pytest.mark.parametrize(
    ("spec", "revision"),
    [(SPEC, "no-such-branch"), ("hf://lab/faces/other.safetensors", None), ("hf://lab/none/small.safetensors", None)],
)
def test_hub_has_no_such_file(hub, cache, spec, revision):
    error = refused(lambda: resolve(spec, cache, revision=revision), ModelError, spec, "no such file")
    assert not isinstance(error, WeightsMissing)
    assert left_behind(cache) == []


def test_hub_that_cannot_be_reached(hub, cache, monkeypatch):
    point_client_to("http://127.0.0.1:9", monkeypatch)
    refused(lambda: resolve(SPEC, cache), WeightsMissing, SPEC, "featray models pull")
    assert left_behind(cache) == []


def test_offline_mode(hub, cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(lambda: resolve(SPEC, cache), WeightsMissing, "featray models pull")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    first = resolve(SPEC, cache)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve(SPEC, cache) == first


def test_hub_in_trouble(hub, cache):
    hub.status = 403
    refused(lambda: resolve(SPEC, cache), ModelError, SPEC)
    assert left_behind(cache) == []


def test_answer_without_a_commit(hub, cache):
    hub.commit_header = False
    refused(lambda: resolve(SPEC, cache), ModelError, SPEC, "the hub's answer is invalid")


def test_dropped_connection_is_resumed(hub, cache, atto):
    hub.drop_after_bytes = 15_000_000
    assert resolve(SPEC, cache).sha256 == atto.sha256
    assert any("bytes=" in request for request in hub.requests)


def test_interrupted_download_leaves_nothing(hub, cache):
    hub.short = True
    refused(lambda: resolve(SPEC, cache), ModelError, SPEC)
    assert left_behind(cache) == []
    hub.short = False
    resolve(SPEC, cache)


def test_corrupted_download_leaves_nothing(hub, cache):
    hub.corrupt = True
    refused(lambda: resolve(SPEC, cache), ModelError, SPEC, "corrupt")
    assert left_behind(cache) == []


def test_file_that_is_no_checkpoint(hub, cache):
    hub.files[FILE] = b"PK\x03\x04 a pickle in disguise"
    error = refused(lambda: resolve(SPEC, cache), ModelError, "pickle")
    assert str(error).startswith(SPEC)
    assert left_behind(cache) == []


def test_file_changed_after_the_pull(hub, cache):
    path = resolve(SPEC, cache).path
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"oops")
    refused(lambda: resolve(SPEC, cache), ModelError, str(path), "pull again")


def test_record_lost_after_the_pull(hub, cache):
    path = resolve(SPEC, cache).path
    path.with_suffix(".json").write_text("{}")
    refused(lambda: resolve(SPEC, cache), ModelError, "damaged")


def test_processes_that_pull_together_through_the_environment(hub, cache, atto):
    code = (
        "import sys, pathlib; from featray.model.source import resolve_checkpoint; "
        f"print(resolve_checkpoint('{SPEC}', revision=None, sha256=None, accept_license=None, "
        "cache_dir=pathlib.Path(sys.argv[1])).sha256); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(cache / "home")}
    command = [sys.executable, "-c", code, str(cache)]
    start = partial(subprocess.Popen, command, stdout=subprocess.PIPE, text=True, env=environment)
    processes = [start() for _ in range(2)]
    assert {process.communicate(timeout=60)[0].strip() for process in processes} == {atto.sha256}
    assert sum(request.startswith("GET") for request in hub.requests) == 1


# licences


@pytest.mark.parametrize("accepted", [None, "", "MIT", "yes"])
@pytest.mark.parametrize("owner", ["py-feat", "Py-Feat"])
def test_restricted_weights_need_consent(hub, cache, accepted, owner):
    spec = f"hf://{owner}/face_multitask_v2/face_multitask_v2.safetensors"
    refused(
        lambda: resolve(spec, cache, accept_license=accepted),
        LicenseError,
        "research, non-commercial",
        "accept_license: research-noncommercial",
    )
    assert hub.requests == []


@pytest.mark.parametrize("known", KNOWN_CHECKPOINTS, ids=lambda known: known.name)
def test_short_names_stand_for_files_on_the_hub(known, hub, cache):
    hub.files[known.spec.removeprefix("hf://")] = hub.files[FILE]
    found = resolve(known.name, cache, accept_license="research-noncommercial")
    hub.requests.clear()
    assert resolve(known.spec, cache, accept_license="research-noncommercial") == found
    assert found.name == known.file.removesuffix(".safetensors")
    assert hub.requests == []
    refused(lambda: resolve(known.name, cache), LicenseError, known.spec)
    assert find_stand_in(known.name, None, "research-noncommercial", cache) is None
    stand_in = find_stand_in(known.name, None, "research-noncommercial", cache / "empty")
    assert stand_in.removeprefix("synthetic:") in SYNTHETIC_VARIANTS


def test_weights_that_were_never_pulled_are_asked_for_by_their_short_name(hub, cache, monkeypatch):
    point_client_to("http://127.0.0.1:9", monkeypatch)
    command = "featray models pull v2.5 --accept-license research-noncommercial"
    refused(lambda: resolve("v2.5", cache, accept_license="research-noncommercial"), WeightsMissing, command)


def test_consent_is_needed_for_what_was_pulled_too(hub, cache):
    name = "py-feat/face_multitask_v2/face_multitask_v28.safetensors"
    hub.files[name] = hub.files[FILE]
    resolve(f"hf://{name}", cache, accept_license="research-noncommercial")
    refused(lambda: resolve(f"hf://{name}", cache), LicenseError)


def test_known_checkpoints_say_whether_they_are_pinned():
    assert {known.name: known.spec.rpartition("/")[2] for known in KNOWN_CHECKPOINTS} == {
        "v2.8": "face_multitask_v28.safetensors",
        "v2.7": "face_multitask_v27.safetensors",
        "v2.5": "face_multitask_v2.safetensors",
    }
    for known in KNOWN_CHECKPOINTS:
        assert known.license == "research-noncommercial"
        assert known.pinned == "not pinned; recorded on first pull"
