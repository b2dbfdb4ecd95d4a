"""The page of an evaluation: the same numbers as the JSON, names as text, nothing loaded from elsewhere."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.evaluate.evaluation import EvaluationSettings, evaluate
from featray.evaluate.labels import LabelSettings, read_labels
from featray.report.scope import open_scope
from tests.fixtures.page import Page


@pytest.fixture(scope="module")
def labels(made):
    """Return labels whose file name is markup, with a group whose name is markup too."""
    path = made.labels.with_name("<b>labels & co.csv")
    path.write_text(made.labels.read_text().replace(",dim,", ",<i>dim</i>,").replace("s0/take0", "s0/gone"))
    return path


@pytest.fixture(scope="module")
def page(made, labels, release):
    path = made.labels.with_name("page.html")
    arguments = ["--labels", str(labels), "--au-threshold", "2", "--release", release, "--split", "light"]
    arguments += ["--resamples", "40", "--card", "aff-wild2", "--out", str(path)]
    done = CliRunner().invoke(main, ["evaluate", made.output.root.path, *arguments])
    assert done.exit_code == 0, done.output
    return Page(path)


def test_numbers_are_those_of_the_evaluation(made, labels, release, page):
    read = read_labels(str(labels), LabelSettings(au_threshold=2.0))
    settings = EvaluationSettings(splits=("light",), resamples=40, card="aff-wild2")
    found = evaluate(open_scope(made.output, release, None), read, settings)
    assert page.by_id["n-labels"] == "1,080" and page.by_id["n-found"] == f"{found.fates['found']:,}"
    shown = {}
    for table in ("headlines", "details"):
        for text, values in zip(page.tables[table], page.values[table], strict=True):
            shown[text[0]] = [float(value) if value else None for value in values[1:3]]
    valence = [
        next(one.value for one in values if (one.what, one.measure) == ("valence", "ccc"))
        for values in (found.found, found.with_missed)
    ]
    assert len(shown) == len(found.found) + 1  # and the header row
    assert shown["valence CCC"] == pytest.approx(valence, abs=1e-12)
    assert [row[3] for row in page.tables["headlines"] if row[0] == "valence CCC"] == ["0.852"]
    assert [int(value) for row in page.values["confusion"][1:] for value in row[1:]] == [
        count for row in found.confusion for count in row
    ]
    assert sum(int(row[1]) for row in page.values["fates"]) == 1080
    assert [row[0] for row in page.tables["split-4"]] == ["light", "<i>dim</i>", "bright"]
    assert "not found" in page.tables["split-4"][0] and "not found" not in page.tables["split-1"][0]


def test_names_are_text_and_nothing_is_loaded(page):
    assert "<b>labels" not in page.text and "<i>dim" not in page.text
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.findall(r"(?:@import|url\()\s*['\"]?(?!#)[a-z]+:", page.text)
    assert "default-src 'none'" in page.text and len(page.ids) == len(set(page.ids))
    assert [figure["role"] for figure in page.figures] == ["img"]
    assert "60 of videos that this release does not have" in page.by_id["labels"]


def test_the_page_of_two_releases(made, release):
    path = made.labels.with_name("against.html")
    arguments = ["--labels", str(made.labels), "--au-threshold", "2", "--release", release, "--against", made.other]
    done = CliRunner().invoke(
        main, ["evaluate", made.output.root.path, *arguments, "--resamples", "50", "--out", str(path), "--json"]
    )
    assert done.exit_code == 0 and "against.html" in done.stderr
    page = Page(path)
    assert page.tables["found-both"][0] == ["measure", "A", "B", "B − A", "from", "to", "labels", "subjects"]
    a, b, difference = (float(value) for value in page.values["found-both"][1][1:4])
    assert difference == pytest.approx(b - a) and len(page.tables["with-missed"]) == len(page.tables["found-both"])
