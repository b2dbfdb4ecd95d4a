"""The card's figures are exactly those of docs/explanation/numbers.md."""

from __future__ import annotations

import re
from pathlib import Path

from featray.evaluate.card import CARD


def test_figures_are_those_that_meaning_states():
    page = (Path(__file__).parents[3] / "docs" / "explanation" / "numbers.md").read_text()
    stated = {}
    for _, data, _, values in re.findall(r"^\| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([0-9][^|]*) \|$", page, re.M):
        stated[data] = [float(value.rstrip("°")) for value in values.split(", ")]
    ours = {
        one.data: [other.value for other in figures if other.data == one.data]
        for figures in CARD.values()
        for one in figures
    }
    assert stated.pop("DISFA+, 8 of them") == [0.740]  # it does not say which eight
    assert ours == stated
