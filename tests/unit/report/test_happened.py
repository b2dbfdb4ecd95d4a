"""Events in a report: counts equal to the tables', strips as pictures, and names only where they may be shown."""

import xml.etree.ElementTree as ElementTree

import pytest

from featray.report.happened import read_happened
from featray.report.scope import open_scope
from featray.tables.layout import open_output
from tests.fixtures.handmade import write_output


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    folder = tmp_path_factory.mktemp("happened") / "out"
    write_output(folder, derived=True)
    return open_scope(open_output(str(folder)), None, "one")


def test_kinds_are_counted_as_the_tables_have_them(scope):
    found = read_happened(scope, blur=False)
    rows = scope.rows("SELECT kind, start_us, end_us, open_start OR open_end AS cut, video_id FROM in_events")
    assert sum(kind["events"] for kind in found.kinds) == len(rows) > 100
    for kind in found.kinds:
        mine = [row for row in rows if row["kind"] == kind["kind"]]
        whole = sorted(row["end_us"] - row["start_us"] for row in mine if not row["cut"])
        assert (kind["events"], kind["videos"]) == (len(mine), len({row["video_id"] for row in mine}))
        assert kind["cut_off"] == len(mine) - len(whole)
        if whole:
            middle = whole[len(whole) // 2] + whole[(len(whole) - 1) // 2]
            assert kind["seconds"] == pytest.approx(middle / 2e6)
    (seen,) = scope.rows("SELECT sum(seen_s) AS s FROM in_tracks")
    assert found.minutes == pytest.approx(seen["s"] / 60)
    assert found.derivation.startswith("d-")


def test_a_strip_shows_every_event_that_is_not_said_to_be_left_out(scope):
    found = read_happened(scope, blur=False)
    assert found.videos == len(found.strips) == 3
    for strip in found.strips:
        name = strip.name.removesuffix(".mp4").rpartition("/")[2]
        (count,) = scope.rows(f"SELECT count(*) AS n FROM in_events WHERE video_id = '{name}'")
        svg = ElementTree.fromstring(strip.plot.svg)
        titled = [rect for rect in svg.iter("{http://www.w3.org/2000/svg}rect") if len(rect)]
        assert len(titled) + strip.left_out == count["n"] and len(titled) <= 400
        for rect in svg.iter("{http://www.w3.org/2000/svg}rect"):
            left, width = float(rect.get("x")), float(rect.get("width"))
            assert 92 <= left and left + width <= 1000


def test_names_of_files_are_left_out_where_people_are_hidden(scope):
    strips = read_happened(scope, blur=True).strips
    assert all(len(strip.name) == 16 and ".mp4" not in strip.plot.words + strip.plot.svg for strip in strips)


def test_without_derived_rows_there_is_nothing_to_say(tmp_path):
    write_output(tmp_path / "out")
    assert read_happened(open_scope(open_output(str(tmp_path / "out")), None, "one"), blur=False) is None


def test_rates_are_over_the_tracks_that_were_searched(scope):
    """One video is sampled too rarely for blinks, nods and shakes: its minutes do not count for those."""
    searched = scope.row("SELECT sum(seen_s) / 60 AS m FROM in_tracks WHERE blinks IS NOT NULL")["m"]
    moved = scope.row("SELECT sum(seen_s) / 60 AS m FROM in_tracks WHERE faces_per_s >= 9.5")["m"]
    found = read_happened(scope, blur=False)
    assert searched < found.minutes and moved < found.minutes, "not all were searched"
    for kind in found.kinds:
        own = {"blink": searched, "nod": moved, "shake": moved}.get(kind["kind"], found.minutes)
        assert kind["minutes"] == pytest.approx(own), kind
