"""Events in the files of ELAN and Praat, opened by the libraries that read them; events and summary as tables."""

from dataclasses import fields

import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.errors import OutputError
from featray.views.annotations import LEAST_MS, write_elan, write_textgrid
from featray.views.selection import VideoRow


def export(made, *arguments):
    return CliRunner().invoke(main, ["export", str(made.output.root.path), *map(str, arguments)])


def events_of(made, name="turned.mp4"):
    return made.rows(
        f"SELECT events.* FROM events JOIN videos USING (video_id) WHERE ends_with(uri, '{name}') ORDER BY event_id"
    )


def spans_of(made):
    found = {}
    for row in events_of(made):
        start = round(row["start_us"] / 1000)
        span = (start, max(round(row["end_us"] / 1000), start + LEAST_MS))
        found.setdefault(f"{row['kind']} track {row['track_id']}", []).append(span)
    return found


def test_elan_opens_the_events_and_finds_the_video(made, tmp_path):
    elan = pytest.importorskip("pympi", reason="pip install 'featray[annotations]'").Elan
    path = tmp_path / "face.eaf"
    assert export(made, "--video", "turned.mp4", "--events", "elan", "--out", path).exit_code == 0
    eaf = elan.Eaf(str(path))
    found = {
        tier: [(a, b) for a, b, *_ in sorted(eaf.get_annotation_data_for_tier(tier))] for tier in eaf.get_tier_names()
    }
    assert found == spans_of(made) and found
    (linked,) = eaf.get_linked_files()
    assert linked["MEDIA_URL"].endswith("/turned.mp4") and linked["MIME_TYPE"] == "video/mp4"


def test_praat_opens_the_events(made, tmp_path):
    praat = pytest.importorskip("pympi", reason="pip install 'featray[annotations]'").Praat
    path = tmp_path / "face.TextGrid"
    assert export(made, "--video", "turned.mp4", "--events", "textgrid", "--out", path).exit_code == 0
    grid = praat.TextGrid(str(path))
    found = {
        tier.name: [(round(a * 1000), round(b * 1000)) for a, b, text in tier.get_all_intervals() if text]
        for tier in grid.get_tiers()
    }
    assert found == spans_of(made)


def test_events_and_summary_as_tables(made, tmp_path):
    path = tmp_path / "events.csv"
    assert export(made, "--events", "csv", "--out", path).exit_code == 0
    every = pd.read_csv(path)
    assert len(every) == len(made.rows("SELECT * FROM events")) > 0
    assert (every["start_seconds"] * 1e6 - every["start_us"]).abs().max() < 1
    one = export(made, "--events", "csv", "--video", "turned.mp4")
    assert one.stdout.count("\n") == 1 + len(events_of(made))
    for style, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        assert export(made, "--summary", style, "--out", tmp_path / style).exit_code == 0
        frame = read(tmp_path / style)
        assert len(frame) == len(made.rows("SELECT * FROM videos")) and "AU12_mean" in frame


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give exactly one of --format, --events and --summary"),
        (("--events", "csv", "--summary", "csv"), "give exactly one of"),
        (("--format", "csv"), "--format needs --video"),
        (("--summary", "csv", "--video", "turned.mp4"), "--summary covers all videos"),
        (("--events", "elan"), "--events elan: needs --video"),
        (("--events", "textgrid", "--video", "turned.mp4"), "--events textgrid: needs --out FILE"),
        (("--summary", "parquet"), "--summary parquet: needs --out FILE"),
    ],
)
def test_what_is_missing_is_said(made, arguments, complaint):
    done = export(made, *arguments)
    assert done.exit_code == 2 and complaint in done.stderr and done.stderr.count("\n") == 1


def event(**values):
    """Return one event in the columns of `events`."""
    row = {"track_id": 1, "kind": "smile", "side": None, "variant": None, "start_us": 5, "end_us": 9, "peak": 0.5}
    row |= {"open_start": False, "open_end": True, **values}
    types = {"peak": pa.float32(), "start_us": pa.int64(), "end_us": pa.int64(), "side": pa.string()}
    return pa.table({name: pa.array([value], types.get(name)) for name, value in row.items()})


HOSTILE = 'a"b\x00\x01\x1b[2J\n<&>]]>\ufffe'


def test_what_somebody_else_wrote_makes_no_file_that_does_not_open(tmp_path):
    pympi = pytest.importorskip("pympi", reason="pip install 'featray[annotations]'")
    events = event(kind=HOSTILE, side=HOSTILE)
    video = VideoRow(
        **dict.fromkeys((field.name for field in fields(VideoRow)), None) | {"uri": f"file:///{HOSTILE}.mp4"}
    )
    write_elan(events, video, tmp_path / "x.eaf")
    (tier,) = pympi.Elan.Eaf(str(tmp_path / "x.eaf")).get_tier_names()
    write_textgrid(events, tmp_path / "x.TextGrid")
    (praat,) = pympi.Praat.TextGrid(str(tmp_path / "x.TextGrid")).get_tiers()
    assert tier.endswith(" track 1") and praat.name.replace('""', '"') == tier
    for path in tmp_path.iterdir():
        assert not set(path.read_bytes()) & {0, 1, 0x1B}, path


@pytest.mark.parametrize("missing", ["kind", "start_us", "peak"])
def test_an_event_without_what_every_event_has_is_one_line(tmp_path, missing):
    with pytest.raises(OutputError, match="events: a row has no kind, times or peak"):
        write_textgrid(event(**{missing: None}), tmp_path / "x.TextGrid")
