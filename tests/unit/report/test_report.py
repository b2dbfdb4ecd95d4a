"""The report page: its numbers equal DuckDB's, names are never markup, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from featray.config import parse_config
from featray.errors import UsageError
from featray.names import AU_NAMES_20
from featray.report.distributions import FEATURES, read_distributions
from featray.report.numbers import nice_width, read_numbers
from featray.report.page import ReportSettings, write_report
from featray.report.scope import open_scope, sample_clause
from featray.tables.layout import open_output
from featray.views.times import clock_text
from tests.fixtures.page import Page
from tests.fixtures.runs import run_here

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(two, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    made = write_report(two.output, str(path), ReportSettings())
    assert (made.dataset, made.release, made.weights_trained) == ("smiles", two.after, False)
    assert made.size_bytes == path.stat().st_size < 1_000_000
    return path


@pytest.fixture(scope="module")
def page(written) -> Page:
    return Page(written)


def test_the_counts_are_those_of_the_tables(two, page):
    (row,) = two.rows(
        "SELECT count(*) AS videos, sum(frames_sampled) AS frames, sum(frames_with_face) AS with_face, "
        "sum(faces) AS faces FROM videos"
    )
    assert row["faces"] > 10
    assert page.by_id["n-videos"] == f"{row['videos']}2 ok, 0 partial, 1 failed"
    assert page.by_id["n-frames"].startswith(f"{row['frames']}of ")
    assert page.by_id["n-faces"].startswith(f"{row['faces']}in ")
    assert page.by_id["n-with-face"].startswith(f"{100 * row['with_face'] / row['frames']:.1f} %")
    assert len(page.tables["video-list"]) == 1 + row["videos"]


def test_every_feature_has_its_mean_and_its_histogram_holds_every_face(two, page):
    scope = open_scope(two.output, None, None)
    faces = two.rows("SELECT count(*) AS n FROM faces")[0]["n"]
    found, share = read_distributions(scope, faces)
    assert share == 1.0 and {one.feature for one in found} == set(FEATURES)
    shown = {text[0]: values for text, values in zip(page.tables["features"], page.values["features"], strict=True)}
    for one in found:
        column = one.feature.column
        values = np.asarray([row["v"] for row in two.rows(f"SELECT {column}::DOUBLE AS v FROM faces")])
        assert float(shown[column][2]) == pytest.approx(values.mean(), abs=1e-9, rel=1e-6)
        assert sum(one.counts) == one.rows == len(values)
        edges = np.asarray([-np.inf, *one.feature.edges[1:-1], np.inf])
        # Bins are open below and closed above.
        expected = np.histogram(-values, np.sort(-edges))[0][::-1]
        np.testing.assert_array_equal(one.counts, expected, err_msg=column)


def test_failures_carry_their_code_meaning_and_example(two, page):
    (error,) = two.rows("SELECT error_code, uri, message FROM errors")
    _, (code, videos, errors, words) = page.tables["errors"]
    assert (code, videos, errors) == (error["error_code"], "1", "1")
    assert "the bytes are not a media file" in words and error["uri"] in words and error["message"] in words


def test_names_are_text_and_never_markup(page):
    assert any("a <b> & 'c'.mp4" in row[0] for row in page.tables["video-list"])
    assert "a <b>" not in page.text


def test_nothing_is_loaded_from_anywhere(page):
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.findall(r"(?:@import|url\()\s*['\"]?(?!#)[a-z]+:", page.text)
    assert "default-src 'none'" in page.text
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_every_picture_says_what_it_shows(page):
    assert len(page.figures) == 9 and all(figure["role"] == "img" and figure["aria-label"] for figure in page.figures)
    assert page.images and all(image["alt"] for image in page.images)


def test_thumbnails_show_the_frame_of_the_row(two, page, written):
    """The thumbnail has the same mean colour as the source at that face."""
    (image,) = page.images
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))), np.float32)
    assert pixels.shape == (208, 208, 3) and pixels.std() > 20
    hidden = written.with_name("hidden.html")
    write_report(two.output, str(hidden), ReportSettings(blur=True))
    (other,) = Page(hidden).images
    blurred = np.asarray(Image.open(io.BytesIO(base64.b64decode(other["src"].split(",")[1]))), np.float32)
    assert blurred.mean() == pytest.approx(pixels.mean(), abs=6)
    # A blurred face consists of flat cells, with hardly any edges.
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.6 * np.abs(np.diff(pixels, axis=1)).mean()


def test_a_hidden_page_names_no_file(two, written):
    hidden = written.with_name("nameless.html")
    write_report(two.output, str(hidden), ReportSettings(blur=True, thumbnails=False))
    text = hidden.read_text()
    assert ".mp4" not in text and str(two.clips) not in text and str(two.output.root.path) not in text


def test_without_thumbnails_and_without_sources_it_says_why(two, tmp_path, written):
    path = tmp_path / "plain.html"
    made = write_report(two.output, str(path), ReportSettings(thumbnails=False))
    assert made.thumbnails == 0 and "No thumbnail: left out by --no-thumbnails" in path.read_text()
    away = two.clips.with_name("away")
    two.clips.rename(away)
    try:
        made = write_report(two.output, str(path), ReportSettings())
    finally:
        away.rename(two.clips)
    assert made.thumbnails == 0 and "cannot be opened" in path.read_text()


def test_untrained_weights_are_said_on_the_page_and_the_release_before_is_compared(two, page):
    assert page.text.count("Synthetic weights: this network was never trained") == 3
    assert two.before in page.by_id["shift"]
    assert len(page.tables["shifts"]) == 1 + len(FEATURES)


def test_the_release_can_be_chosen_and_a_wrong_one_is_named(two, tmp_path):
    made = write_report(two.output, str(tmp_path / "r.html"), ReportSettings(release=two.before, thumbnails=False))
    assert made.release == two.before
    for wrong, words in (({"release": "nope"}, two.before), ({"dataset": "nope"}, "smiles")):
        with pytest.raises(UsageError, match=words):
            write_report(two.output, str(tmp_path / "r.html"), ReportSettings(**wrong))


def test_the_strongest_moment_is_that_of_the_tables(two, page):
    mean = " + ".join(au for au in AU_NAMES_20 if au != "AU43")
    (row,) = two.rows(f"SELECT frame_index, pts_us, AU12 FROM faces ORDER BY ({mean}) DESC LIMIT 1")
    moments = page.by_id["moments"]
    assert clock_text(row["pts_us"]) in moments and "a <b> & 'c'.mp4" in moments


def test_an_output_without_a_face_or_even_a_frame_makes_a_page_too(tmp_path, two):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video at all")
    weights, metadata = two.clips.parent / "atto-0.safetensors", {}
    with safe_open(weights, framework="numpy") as file:
        metadata = file.metadata() | {"weights_trained": "true"}
    checkpoint = tmp_path / "trained.safetensors"
    save_file(load_file(weights), checkpoint, metadata=metadata)
    config = {
        "dataset": "nothing",
        "input": {"uris": [f"{tmp_path}/clips/*.mp4"]},
        "output": {"uri": str(tmp_path / "out")},
        "model": {"checkpoint": str(checkpoint), "engine": "torch", "precision": "fp32"},
    }
    for clip in ("", "nobody.mp4"):
        if clip:
            shutil.copy(two.clips / clip, tmp_path / "clips")
        run_here(parse_config(config))
        made = write_report(open_output(str(tmp_path / "out")), str(tmp_path / "r.html"), ReportSettings())
        shown = Page(tmp_path / "r.html")
        assert made.moments == 0 and made.weights_trained and "Synthetic weights" not in shown.text
        assert shown.by_id["n-faces"].startswith("0in 0 tracks") and "not_a_video" in shown.text
        assert ("No frame could be sampled" in shown.text) is (clip == "")


def test_a_sample_is_drawn_evenly():
    assert sample_clause(20_000_000) == ("", 1.0)
    clause, share = sample_clause(3_000_000, most=1_000_000)
    assert share == pytest.approx(1 / 3, abs=0.001)
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t AS SELECT range AS x FROM range(3_000_000)")
    mean, n = connection.execute(f"SELECT avg(x), count(*) FROM t {clause}").fetchone()
    assert n == pytest.approx(1_000_000, rel=0.1) and mean == pytest.approx(1_500_000, rel=0.1)


@pytest.mark.parametrize(("width", "nice"), [(0.3, 0.5), (1.0, 1), (1.2, 2), (7.0, 10), (14, 20), (0.02, 0.02)])
def test_bins_have_round_widths(width, nice):
    assert nice_width(width) == pytest.approx(nice)


def test_no_bin_of_time_is_narrower_than_from_a_sampled_frame_to_the_next(two):
    """Else gaps in the sampling look like missing frames."""
    coverage = read_numbers(open_scope(two.output, two.before, None)).coverage
    frames = [sum(one) for one in zip(coverage.with_face, coverage.no_face, coverage.decode_error, strict=True)]
    assert coverage.width_seconds >= 4 / 24 and 0 not in frames[: int(2 / coverage.width_seconds)]
