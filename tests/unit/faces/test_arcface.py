"""The embedder with downloaded weights: its licence, its name on the hub, and results that ignore other faces."""

import hashlib

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from featray.cli import main
from featray.config import parse_config
from featray.config_identify import IdentifyConfig
from featray.errors import ConfigError, LicenseError, ModelError, UsageError, WeightsMissing
from featray.faces.embedder import embedder_of, open_embedder
from featray.faces.embedder_arcface import ArcFaceEmbedder
from featray.faces.embedder_weights import find_embedder, pull_embedder
from featray.identity import result_settings
from featray.persons.settings import PersonsSettings
from featray.run.runner import describe
from tests.fixtures.arcface_weights import write_arcface_weights
from tests.fixtures.hub_server import COMMIT, point_client_to, serving

HUB_NAME = "py-feat/arcface_r50/arcface_r50.safetensors"
ACCEPT = "research-noncommercial"
ON = {"enabled": True, "accept_biometric": True, "embedder": "arcface-r50"}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_arcface_weights(tmp_path_factory.mktemp("arcface") / "arcface_r50.safetensors")


@pytest.fixture
def hub(published, monkeypatch, tmp_path):
    monkeypatch.setenv("FEATRAY_CACHE", str(tmp_path / "cache"))
    with serving() as hub:
        hub.files[HUB_NAME] = published.read_bytes()
        point_client_to(hub.url, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield hub


def settings(**more):
    return IdentifyConfig.model_validate({**ON, **more})


def of_job(**more):
    return parse_config(
        {"dataset": "d", "input": {"uris": ["a"]}, "output": {"uri": "o"}, "identify": {**ON, **more}}
    ).model_copy()


def test_its_licence_has_to_be_accepted_and_nothing_is_fetched_before(hub, tmp_path):
    done = CliRunner().invoke(main, ["models", "pull", "arcface-r50"])
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and "research, non-commercial use only" in line and "--accept-license" in line
    for call in (lambda: embedder_of(settings()), lambda: describe(of_job()), lambda: open_embedder(settings())):
        with pytest.raises(LicenseError, match=f"set identify.accept_license: {ACCEPT}"):
            call()
    assert hub.requests == []


def test_a_run_fetches_nothing_and_names_the_command(hub, tmp_path):
    accepted = settings(accept_license=ACCEPT)
    with pytest.raises(WeightsMissing, match=f"`featray models pull arcface-r50 --accept-license {ACCEPT}`"):
        embedder_of(accepted)
    assert hub.requests == []


def test_what_was_pulled_is_found_without_the_network(hub, published, tmp_path):
    cache = tmp_path / "cache"
    done = CliRunner().invoke(main, ["models", "pull", "arcface-r50", "--accept-license", ACCEPT])
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert done.exit_code == 0 and digest in done.stdout and COMMIT in done.stdout
    hub.requests.clear()
    accepted = settings(accept_license=ACCEPT)
    assert embedder_of(accepted) == digest == find_embedder(accepted, cache).sha256
    listed = CliRunner().invoke(main, ["models", "list"]).stdout
    assert f"license {ACCEPT}; pulled" in listed.split("Face embedders")[1]
    assert open_embedder(accepted).sha256 == digest
    assert hub.requests == []
    path = find_embedder(accepted, cache).path
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with pytest.raises(ModelError, match="not the file that was pulled"):
        find_embedder(accepted, cache)


def test_a_file_of_other_tensors_is_refused(published, tmp_path):
    tensors = load_file(published)
    del tensors["layer1.0.downsample.bias"]
    save_file(tensors, tmp_path / "other.safetensors")
    other = settings(accept_license=ACCEPT, weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(ModelError, match=r"'layer1.0.downsample.bias' is missing, not \[64\]"):
        find_embedder(other, tmp_path)
    missing = settings(accept_license=ACCEPT, weights="/nowhere/x.safetensors")
    with pytest.raises(ModelError, match=r"identify\.weights: /nowhere/x\.safetensors: no such file"):
        find_embedder(missing, tmp_path)


def test_a_face_does_not_depend_on_its_neighbours(published, tmp_path):
    embedder = open_embedder(settings(accept_license=ACCEPT, weights=str(published)))
    assert isinstance(embedder, ArcFaceEmbedder)
    faces = np.random.default_rng(2).integers(0, 256, (6, 112, 112, 3), np.uint8)
    together = embedder(faces)
    assert together.shape == (6, 512) and np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert (embedder(faces[4:5])[0] == together[4]).all() and (embedder(faces[1:3]) == together[1:3]).all()
    assert embedder(faces[:0]).shape == (0, 512)
    assert np.abs(together @ together.T - np.eye(6)).max() > 1e-3


def test_what_settings_change(published):
    """Weights count by content, not by path; settings with face-api give the same names as before."""
    known = {"weights_sha256": "a", "detector_sha256": "b", "precision": "fp32"}
    where = of_job(accept_license=ACCEPT, weights=str(published))
    pulled = of_job(accept_license=ACCEPT, revision="v2")
    told = [result_settings(one, embedder_sha256="c", **known)["identify"] for one in (where, pulled)]
    assert told[0] == told[1]
    assert told[0].keys() == {
        "epoch", "embedder_sha256", "embedder", "every_s", "min_face_px", "min_in_frame", "max_turn"
    }  # fmt: skip
    with pytest.raises(ConfigError, match="accept_license is set, but face-api ships with featray"):
        of_job(embedder="face-api", accept_license=ACCEPT)


def test_persons_need_a_threshold_for_it():
    with pytest.raises(UsageError, match="no threshold is known for arcface-r50; choose one with --threshold"):
        PersonsSettings().threshold_of("arcface-r50")
    assert PersonsSettings(0.4).threshold_of("arcface-r50") == 0.4


def test_a_pull_is_checked(hub, tmp_path):
    hub.files[HUB_NAME] = b"PK\x03\x04 a pickle in disguise"
    with pytest.raises(ModelError, match="not a safetensors file"):
        pull_embedder("arcface-r50", revision=None, sha256=None, accept_license=ACCEPT, cache_dir=tmp_path / "cache")
