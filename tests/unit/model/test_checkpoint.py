"""Checkpoints are untrusted: each kind of damage gives a one-line error with the file and what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from featray.errors import ConfigError, ModelError
from featray.model.checkpoint import read_checkpoint
from featray.model.config import config_from_json
from featray.model.engines import open_engine
from featray.model.layout import expected_layout
from featray.model.synth import write_synthetic
from tests.fixtures.chance import examples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tensors(atto):
    return load_file(atto.path)


@pytest.fixture
def bad(tmp_path, tensors, atto):
    """Return a function that writes a changed copy of the atto checkpoint."""

    def write(change=None, metadata=None):
        changed = dict(tensors)
        if change:
            change(changed)
        path = tmp_path / "bad.safetensors"
        save_file(changed, path, metadata=metadata or {"config": atto.config.model_dump_json()})
        return path

    return write


def refused(path, *parts):
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 600
    for part in parts:
        assert part in message


def test_description_of_a_synthetic_checkpoint(atto):
    assert atto.name == "atto"
    assert atto.license == "MIT"
    assert atto.weights_trained is False
    assert atto.revision is None
    assert len(atto.sha256) == 64
    assert 6_000_000 < atto.num_parameters < 7_000_000


def test_without_metadata_of_ours_weights_are_trained_and_restricted(bad):
    checkpoint = read_checkpoint(bad())
    assert checkpoint.weights_trained is True
    assert checkpoint.license == "research-noncommercial"


def test_half_precision_is_read(bad):
    def halve(tensors):
        tensors["sc.s"] = tensors["sc.s"].astype(np.float16)

    read_checkpoint(bad(halve))


def test_missing_tensor(bad):
    refused(bad(lambda t: t.pop("lmk.mlp.4.bias")), "missing", "'lmk.mlp.4.bias'")


def test_many_missing_tensors_are_counted(bad):
    def drop(tensors):
        for name in [name for name in tensors if name.startswith("backbone.")]:
            del tensors[name]

    refused(bad(drop), "missing", "'backbone.stem_0.weight'", "more")


def test_unexpected_tensor(bad):
    refused(bad(lambda t: t.update(horns=np.zeros(2, np.float32))), "unexpected", "'horns'")


def test_misshapen_tensor(bad):
    refused(bad(lambda t: t.update({"sc.s": t["sc.s"][:, :32].copy()})), "'sc.s'", "[20, 32]", "[20, 64]")


def test_wrong_dtype(bad):
    refused(bad(lambda t: t.update({"sc.s": t["sc.s"].astype(np.int64)})), "'sc.s'", "I64")
    refused(bad(lambda t: t.update({"sc.s": t["sc.s"].astype(np.float64)})), "'sc.s'", "F64")


def test_missing_config(bad):
    refused(bad(metadata={"format": "pt"}), "'config'")


def test_bad_config_names_the_key(bad):
    refused(bad(metadata={"config": json.dumps({"use_head_v3": False})}), "'use_head_v3'")
    refused(bad(metadata={"config": "{"}), "JSON")


@pytest.mark.parametrize("keep_bytes", [0, 5, 100, 30_000, 20_000_000])
def test_truncated(atto, tmp_path, keep_bytes):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(atto.path.read_bytes()[:keep_bytes])
    refused(path, "not a complete safetensors file", "download it again")


def test_trailing_bytes(atto, tmp_path):
    path = tmp_path / "long.safetensors"
    path.write_bytes(atto.path.read_bytes() + b"x")
    refused(path, "not fully covered")


def test_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "model.safetensors"
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
        refused(path, "pickle")
    path.write_bytes(b"PK\x03\x04" + bytes(100))  # torch.save since 1.6
    refused(path, "pickle")


def header_file(path, header, data=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [10**18], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    ],
)
def test_malformed_entries(tmp_path, entry):
    refused(header_file(tmp_path / "f.safetensors", {"t": entry}, bytes(8)), "not a complete safetensors file")


@st.composite
def headers(draw):
    """Draw a header of arbitrary tensors and metadata, intact or with some bytes changed."""
    number = st.integers(-2, 20) | st.sampled_from([1 << 31, 1 << 63, 1 << 64, 10**40])
    odd = st.none() | st.booleans() | number | st.floats() | st.text(max_size=5) | st.lists(number, max_size=3)
    entry = st.fixed_dictionaries(
        {"dtype": st.sampled_from(["F32", "F16", "I64", "F8_E4M3", "BOOL"]) | odd},
        optional={"shape": st.lists(number, max_size=3) | odd, "data_offsets": st.just([0, 8]) | odd},
    )
    config = st.builds(json.dumps, st.dictionaries(st.text(max_size=8), odd | st.text(max_size=2000), max_size=3))
    metadata = st.dictionaries(st.sampled_from(["config", "license", "x"]), config | odd, max_size=3)
    names = st.text(max_size=8) | st.just("__metadata__")
    header = draw(st.dictionaries(names, entry | metadata | odd, max_size=4))
    text = json.dumps(header).encode() + b" " * draw(st.integers(0, 8))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=6)) + text[at + draw(st.integers(0, 4)) :]
    length = draw(st.just(len(text)) | st.integers(0, 2**64 - 1))
    return struct.pack("<Q", length) + text + bytes(draw(st.sampled_from([0, 8, 9])))


@examples(150)
@given(data=headers())
def test_headers_of_any_kind_are_refused_in_a_line(tmp_path, data):
    path = tmp_path / "f.safetensors"
    path.write_bytes(data)
    with pytest.raises((ModelError, ConfigError)) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@examples(100)
@given(data=st.data())
def test_configs_of_any_kind_are_refused_in_a_line(atto, data):
    """Configs of an intact checkpoint with one value replaced."""
    config = json.loads(atto.config.model_dump_json())
    odd = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers())
    config[data.draw(st.sampled_from(sorted(config)) | st.text(max_size=9))] = data.draw(odd)
    try:
        expected_layout(config_from_json(json.dumps(config), source="x"))
    except (ModelError, ConfigError) as error:
        assert len(str(error).splitlines()) == 1


def test_overlapping_tensors(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    refused(header_file(tmp_path / "f.safetensors", {"t": entry, "u": entry}, bytes(8)), "invalid offset for tensor")


def test_malformed_headers(tmp_path):
    path = tmp_path / "f.safetensors"
    refused(header_file(path, b"{nonsense"), "JSON")
    refused(header_file(path, b"{" + b"[" * 200_000), "JSON")
    refused(header_file(path, {"__metadata__": {"config": 1}}), "expected a string")
    refused(header_file(path, {"__metadata__": 7}), "expected a map")
    path.write_bytes(struct.pack("<Q", 10**15) + b"{" + bytes(100))
    refused(path, "header too large")


def test_absurd_numbers_are_refused_at_once(tmp_path):
    """Python's own JSON parser would need minutes for these numbers."""
    entry = {"dtype": "F32", "shape": [10**3999], "data_offsets": [0, 0]}
    path = header_file(tmp_path / "f.safetensors", {str(i): entry for i in range(3000)})
    start = time.monotonic()
    refused(path, "out of range")
    assert time.monotonic() - start < 5


def test_what_is_described_is_what_was_hashed(atto, bad, tmp_path):
    """A file is replaced all the time; a description never has the config of one version and the digest of another."""
    other = bad(metadata={"config": atto.config.model_copy(update={"gaze_eye_box_frac": 0.5}).model_dump_json()})
    files = {one.path: (one.sha256, one.config) for one in (atto, read_checkpoint(other))}
    path, stopped = tmp_path / "swapped.safetensors", threading.Event()
    shutil.copy(atto.path, path)

    def swap():
        while not stopped.is_set():
            for file in files:
                (tmp_path / "next").hardlink_to(file)
                (tmp_path / "next").replace(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = [read_checkpoint(path) for _ in range(40)]
    finally:
        stopped.set()
        thread.join()
    assert {(one.sha256, one.config.gaze_eye_box_frac) for one in seen} == {
        (sha256, config.gaze_eye_box_frac) for sha256, config in files.values()
    }


@pytest.mark.parametrize("engine", [pytest.param("torch", marks=pytest.mark.long), "openvino"])
def test_weights_that_change_after_they_were_hashed_are_not_loaded(engine, atto, chips, kept_cache, tmp_path):
    """Otherwise numbers of one file would carry the digest of another, and the cache would keep them forever."""
    path, settings = tmp_path / "swapped.safetensors", {"engine": engine, "precision": "fp32", "batch_size": 4}
    shutil.copy(atto.path, path)
    checkpoint = read_checkpoint(path)
    write_synthetic(path, config=atto.config, seed=1)
    with pytest.raises(ModelError, match="changed since it was checked"):
        open_engine(checkpoint, **settings, cache_dir=tmp_path / "cache")
    shutil.copy(atto.path, path)
    ours = open_engine(checkpoint, **settings, cache_dir=tmp_path / "cache")(chips)
    assert np.array_equal(ours.au, open_engine(atto, **settings, cache_dir=kept_cache)(chips).au)


def test_unreadable(tmp_path):
    refused(tmp_path / "none.safetensors", "cannot be read")
    refused(tmp_path, "cannot be read")
