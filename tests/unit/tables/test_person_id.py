"""`person_id` when reading: joined to tracks, features, summary and exports; no table is rewritten for it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import featray
from featray.cli import main
from featray.config import parse_config
from featray.config_derive import DeriveConfig
from featray.errors import ConfigError
from featray.findings.derive import Derivation
from featray.persons.settings import PersonsSettings
from featray.schema import PRIVATE_TABLES
from featray.tables.opened import open_tables
from featray.upkeep.derive import derive_partition
from featray.upkeep.persons import find_persons
from tests.fixtures.crowd import Crowd, video_of
from tests.fixtures.handmade import write_output
from tests.fixtures.outputs import rows
from tests.fixtures.plugin import DATA

VIDEOS = {"0.mp4": [0, 1, 0, (2, 3)], "1.mp4": [1, (0, 4)], "2.mp4": [4]}
SHOWN = ("tracks", "features", "summary")


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Return an output with embeddings and tracks, but without persons."""
    made = Crowd(tmp_path_factory.mktemp("crowd") / "out")
    made.publish(VIDEOS)
    derive_partition(made.partition, Derivation(DeriveConfig()))
    return Path(made.output.root.path)


@pytest.fixture
def root(before, tmp_path):
    shutil.copytree(before, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def known(root):
    """Add persons to the output, and return the person of each track."""
    with open_tables(str(root)) as out:
        (dataset,) = out.releases
    made = Crowd(root, dataset=dataset)
    before = sorted(path for path in root.rglob("*.parquet"))
    find_persons(made.partition, PersonsSettings())
    assert [path for path in before if not path.exists()] == [], "no table is rewritten"
    return {(row["video_id"], row["track_id"]): row["person_id"] for row in rows(root, "persons")}


def test_it_is_null_where_nobody_was_asked_for(root):
    with featray.open(str(root)) as out:
        for name in SHOWN:
            assert out.sql(f"SELECT DISTINCT person_id FROM {name}").fetchall() == [(None,)], name


def test_tracks_and_features_say_whose_each_row_is(root, known):
    with featray.open(str(root)) as out:
        tracks = out.tracks.select("video_id, track_id, person_id").fetchall()
        assert {(video, track): person for video, track, person in tracks} == known and len(tracks) == len(known)
        found = out.sql("SELECT video_id, track_id, person_id, count(*) FROM features GROUP BY ALL").fetchall()
        assert {(video, track): person for video, track, person, _ in found} == known
        assert sum(row[3] for row in found) == len(out.faces)
        narrowed = out.features.filter("person_id IS NOT NULL").select("person_id, AU12")
        assert len(narrowed) == len(out.faces)


def test_the_summary_says_it_of_the_main_track(root, known):
    with featray.open(str(root)) as out:
        for video, track, person in out.summary.select("video_id, track_id, person_id").fetchall():
            assert person == known[video, track] is not None


def test_exports_and_queries_say_the_same(root, known, tmp_path):
    path = tmp_path / "0.csv"
    for style in ("csv", "parquet"):
        arguments = ["export", str(root), "--video", "0.mp4", "--format", style, "--out", str(path)]
        assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
        frame = pd.read_csv(path) if style == "csv" else pd.read_parquet(path)
        told = {(row.video_id, row.track_id): row.person_id for row in frame.itertuples()}
        assert told == {key: name for key, name in known.items() if key[0] == video_of("0.mp4")}
    sql = "SELECT person_id, count(*) AS tracks FROM tracks GROUP BY ALL ORDER BY ALL"
    done = CliRunner().invoke(main, ["query", str(root), sql, "--format", "json"], catch_exceptions=False)
    counts = {name: list(known.values()).count(name) for name in known.values()}
    assert {row["person_id"]: row["tracks"] for row in json.loads(done.stdout)} == counts
    arguments = ["export", str(root), "--summary", "csv", "--out", str(path)]
    CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert set(pd.read_csv(path)["person_id"]) <= set(known.values())


def test_a_track_that_persons_does_not_know_has_none(root, known):
    made = Crowd(root)
    made.publish({"late.mp4": [0]})
    with featray.open(str(root)) as out:
        sql = f"SELECT DISTINCT person_id FROM features WHERE video_id = '{video_of('late.mp4')}'"
        assert out.sql(sql).fetchall() == [(None,)]
        assert out.sql("SELECT count(DISTINCT person_id) FROM features").fetchall() == [(len(set(known.values())),)]


def test_no_view_has_an_embedding(root, known):
    with featray.open(str(root)) as out:
        columns = {name for view in (*out.tables, *out.views, "persons") for name in getattr(out, view).columns}
        of_view = {column.name for column in PRIVATE_TABLES["embeddings"]} & columns
        assert not {"embedding", "embedder", "quality"} & of_view
        with pytest.raises(AttributeError):
            _ = out.embeddings


def test_an_older_output_still_opens(tmp_path):
    shutil.copytree(DATA / "older_output", tmp_path / "out")
    with featray.open(str(tmp_path / "out")) as out:
        for name in ("features", "summary"):
            assert out.sql(f"SELECT DISTINCT person_id FROM {name}").fetchall() == [(None,)], name
        assert out.tracks.columns[-1] == "person_id" and len(out.persons) == 0


def test_a_path_field_of_that_name_stays_what_it_was(tmp_path, monkeypatch):
    """Outputs from before there were persons may have one; together with embeddings it is refused."""
    monkeypatch.setattr("tests.fixtures.handmade.FIELD", "person_id")
    write_output(tmp_path / "out", derived=True)
    with featray.open(str(tmp_path / "out")) as out:
        for name in SHOWN:
            assert getattr(out, name).columns.count("person_id") == 1
            assert set(out.sql(f"SELECT DISTINCT person_id FROM {name}").fetchall()) == {("berlin",), ("oslo",)}, name
    data = {"dataset": "d", "input": {"uris": ["x"], "path_fields": "{person_id}/{name}"}, "output": {"uri": "y"}}
    assert parse_config(data).input.path_fields
    with pytest.raises(ConfigError, match=r"person_id.*embeddings or persons"):
        parse_config({**data, "identify": {"enabled": True, "accept_biometric": True}})
