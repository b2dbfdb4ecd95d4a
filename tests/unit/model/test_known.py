"""The records of published checkpoints, and how a file is recognised as one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from featray.model import known as module
from featray.model.conventions import NEWEST, PYFEAT_2_0, PYFEAT_2_1_2
from featray.model.known import KNOWN_CHECKPOINTS, V25, V28, full_spec, known_by_spec, recognise
from featray.model.synth import SYNTHETIC_VARIANTS
from featray.schema import FACES

MEANING = Path(module.__file__).parents[2] / "docs" / "explanation" / "numbers.md"


def trained(atto, variant="atto"):
    return replace(atto, weights_trained=True, config=SYNTHETIC_VARIANTS[variant])


def test_the_records_say_which_signs():
    assert [(known.name, known.conventions) for known in KNOWN_CHECKPOINTS] == [
        ("v2.8", PYFEAT_2_1_2), ("v2.7", PYFEAT_2_1_2), ("v2.5", PYFEAT_2_0),
    ]  # fmt: skip
    assert [[*known.unusable] for known in KNOWN_CHECKPOINTS] == [[], [], ["pose_pitch"]]


@pytest.mark.parametrize("known", KNOWN_CHECKPOINTS, ids=lambda known: known.name)
def test_every_statement_has_its_source(known):
    for fact in (*known.facts, *known.licence_facts, *known.unusable.values()):
        assert fact.says and "py-feat" in fact.source


@pytest.mark.parametrize("known", KNOWN_CHECKPOINTS, ids=lambda known: known.name)
def test_a_name_and_an_address_are_the_same(known, atto):
    assert full_spec(known.name) == known.spec == f"hf://py-feat/face_multitask_v2/{known.file}"
    assert known_by_spec(known.name) is known_by_spec(known.spec) is known
    for spec in (known.name, known.spec):
        found = recognise(trained(atto), spec)
        assert (found.known, found.conventions, found.how) == (
            known,
            known.conventions,
            f"{known.name}, by its name on the hub",
        )


def test_a_file_is_recognised_by_its_sha256(atto, monkeypatch):
    pinned = replace(V25, sha256=atto.sha256)
    monkeypatch.setattr(module, "KNOWN_CHECKPOINTS", (V28, pinned))
    found = recognise(trained(atto), "/somewhere/copy.safetensors")
    assert (found.known, found.how) == (pinned, "v2.5, by its sha256")


@pytest.mark.parametrize(("variant", "known"), [("v25", V25), ("v28", V28)])
def test_a_file_is_recognised_by_its_config(variant, known, atto):
    found = recognise(trained(atto, variant), "/somewhere/copy.safetensors")
    assert (found.known, found.how) == (known, f"taken for {known.name}, by its config")
    assert [*found.unusable] == [*known.unusable]


@pytest.mark.parametrize("variant", ["atto", "v24", "v26headframe"])
def test_a_file_that_is_not_known_takes_the_newest_signs_and_says_so(variant, atto):
    found = recognise(trained(atto, variant), "/somewhere/other.safetensors")
    assert (found.known, found.conventions, found.unusable) == (None, NEWEST, {})
    assert found.how == "not a known checkpoint; the newest conventions, py-feat-2.1.2, are taken for it"


@pytest.mark.parametrize("variant", ["v25", "v28"])
def test_synthetic_weights_are_nobodys_whatever_their_shape(variant, atto):
    """Their releases therefore keep their names."""
    found = recognise(replace(trained(atto, variant), weights_trained=False), f"synthetic:{variant}")
    assert (found.known, found.conventions, found.unusable) == (None, NEWEST, {})


def test_what_cannot_be_meant_is_told_where_columns_are_explained():
    text = MEANING.read_text("utf-8")
    meanings = {column.name: column.meaning for column in FACES}
    for known in KNOWN_CHECKPOINTS:
        assert f"`{known.name}`" in text
        for column in known.unusable:
            assert known.name in meanings[column] and "runs.unusable" in meanings[column]
            assert f"`{column}`" in text
