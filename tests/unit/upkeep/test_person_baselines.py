"""Baselines of persons: from all their faces in any shot and video, and made again when persons change."""

import numpy as np
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.config_derive import DeriveConfig
from featray.findings.derive import Derivation
from featray.tables.commits import read_commits
from featray.tables.lease import hold
from featray.tables.query import connect
from featray.upkeep import person_baselines
from featray.upkeep.compact import compact_partition
from featray.upkeep.derive import derive_held, derive_partition
from featray.upkeep.erase import erase
from featray.upkeep.rederive import Rederive, differences
from tests.fixtures.people import FRAMES, add_shard, derived_files, derived_rows, open_people, publish_persons, video_id

SETTINGS = ["--set", "derive.baseline=person"]
PERSON = Derivation(DeriveConfig.model_validate({"baseline": "person"}))
ANNA, BEN = "p-aaaaaaaaaaaa", "p-bbbbbbbbbbbb"


def level(*parts):
    """Return AU12 of a video, given as (share of its frames, level) pairs."""
    return np.concatenate([np.full(round(share * FRAMES), value) for share, value in parts])


# Anna smiles for most of the first video, but not for most of the time in both together.
SHARDS = {
    "one": {"anna": (None, level((0.7, 0.8), (0.3, 0.1)))},
    "two": {"both": (None, [level((1, 0.1)), level((0.5, 0.4), (0.5, 0.6))]), "nobody": (None, level((1, 0.9)))},
}
WHO = {("anna", 0): ANNA, ("both", 0): ANNA, ("both", 1): BEN}


@pytest.fixture
def root(tmp_path):
    for shard, videos in SHARDS.items():
        add_shard(tmp_path / "out", shard, videos)
    return tmp_path / "out"


def say(root, who, generation="0"):
    rows = [
        {"video_id": video_id(video), "track_id": track, "person_id": person} for (video, track), person in who.items()
    ]
    publish_persons(open_people(root)[1], rows, generation)


def baselines(root, column="AU12_baseline"):
    sql = f"SELECT video_id, track_id, {column} FROM tracks"
    names = {video_id(name): name for videos in SHARDS.values() for name in videos}
    rows = connect(open_people(root)[0]).sql(sql).fetchall()
    return {(names[video], track): value for video, track, value in rows if video in names}


EXPECTED = {("anna", 0): 0.1, ("both", 0): 0.1, ("both", 1): 0.4, ("nobody", 0): None}


def test_it_is_the_median_of_all_faces_of_a_person_over_time(root):
    say(root, WHO)
    done = derive_partition(open_people(root)[1], PERSON)
    assert (done.shards, done.again, done.persons, done.note) == (2, 0, 2, "")
    found = baselines(root)
    assert found == {key: value if value is None else pytest.approx(value) for key, value in EXPECTED.items()}
    assert baselines(root, "AU12_p50")["anna", 0] == pytest.approx(0.8), "where each track's own would be 0.8"
    assert baselines(root, "AU01_baseline")["both", 1] == pytest.approx(0.1)
    assert derive_partition(open_people(root)[1], PERSON).already == 2


@pytest.mark.parametrize("most", [1, 150, 10_000])
def test_people_are_read_in_groups_of_any_size(root, most, monkeypatch):
    monkeypatch.setattr(person_baselines, "MOST_FACES", most)
    say(root, WHO)
    derive_partition(open_people(root)[1], PERSON)
    assert baselines(root) == {key: value if value is None else pytest.approx(value) for key, value in EXPECTED.items()}


def run(root, *arguments):
    return CliRunner().invoke(main, [*arguments[:1], str(root), *arguments[1:]], catch_exceptions=False).stdout


def test_without_persons_the_command_is_refused_and_a_run_has_null(root):
    told = CliRunner().invoke(main, ["derive", str(root), *SETTINGS])
    assert (told.exit_code, told.stdout, told.stderr.count("\n")) == (1, "", 1)
    words = (
        "no baselines: the release has no persons; run `featray persons OUT`, then repeat; "
        "it needs a run with identify.enabled"
    )
    assert f"{words}; nothing was derived" in told.stderr and derived_files(root) == []
    with hold(open_people(root)[1], "run-1") as lease:
        assert derive_held(lease, PERSON).note == words
    assert set(baselines(root).values()) == {None}
    say(root, WHO)
    assert "2 shards stale: neutral videos or persons have changed" in run(root, "status")
    told = run(root, "derive", *SETTINGS)
    assert (
        "2 shards derived, 2 of them since persons have changed or rows were erased" in told and "; 2 persons" in told
    )
    assert "stale" not in run(root, "status")
    assert baselines(root)["both", 1] == pytest.approx(0.4)


def test_rows_are_made_again_where_persons_changed_and_nowhere_else(root):
    _, partition = open_people(root)
    say(root, WHO)
    derive_partition(partition, PERSON)
    say(root, {**WHO, ("both", 1): "p-cccccccccccc"}, "1")
    again = Rederive(partition, lambda: read_commits(partition))
    for commit in read_commits(partition):
        assert list(differences(partition, commit, again)) == []
    (line,) = again.unfinished
    assert "commit two: persons have changed, or rows were erased, since derivation" in line
    assert "1 shard stale" in run(root, "status")
    assert derive_partition(partition, PERSON).again == 1
    say(root, {("anna", 0): ANNA}, "2")
    done = derive_partition(partition, PERSON)
    assert (done.again, done.persons) == (2, 1), "anna has lost a track, and those of `two` their persons"
    assert baselines(root) == {
        ("anna", 0): pytest.approx(0.8),
        ("both", 0): None,
        ("both", 1): None,
        ("nobody", 0): None,
    }
    assert derive_partition(partition, PERSON).again == 0
    again = Rederive(partition, lambda: read_commits(partition))
    for commit in read_commits(partition):
        assert list(differences(partition, commit, again)) == []
    assert again.unfinished == []


def test_an_erased_video_counts_no_longer(root):
    output, partition = open_people(root)
    say(root, WHO)
    derive_partition(partition, PERSON)
    erase(output, video_id("both"))
    assert derive_partition(partition, PERSON).again == 1, "nobody else in her shard rests on another one"
    assert baselines(root)["anna", 0] == pytest.approx(0.8)


def test_compaction_and_the_order_of_shards_change_nothing(root, tmp_path):
    output, partition = open_people(root)
    say(root, WHO)
    derive_partition(partition, PERSON)
    before = derived_rows(output)
    compact_partition(partition)
    assert derive_partition(partition, PERSON).already == 1 and derived_rows(output) == before
    other = tmp_path / "other"
    add_shard(other, "all", {**SHARDS["two"], **SHARDS["one"]})
    say(other, WHO)
    derive_partition(open_people(other)[1], PERSON)
    assert derived_rows(open_people(other)[0]) == before
