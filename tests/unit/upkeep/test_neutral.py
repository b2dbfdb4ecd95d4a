"""Baselines come from neutral videos with the same key, in any shard and any order, while those are published."""

import json
import re
import shutil
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.config_derive import DeriveConfig, NeutralConfig
from featray.findings.derive import Derivation
from featray.findings.neutral import WHOLE, read_mark
from featray.tables import derived as derived_module
from featray.tables import writer
from featray.tables.commits import read_commits, write_commit
from featray.tables.layout import list_partitions, open_output
from featray.tables.lease import HeldPartition, hold
from featray.tables.query import connect
from featray.tables.replace import without_videos
from featray.upkeep.compact import compact_partition
from featray.upkeep.derive import derive_held, derive_partition
from featray.upkeep.erase import erase
from featray.upkeep.rederive import Rederive, differences
from featray.upkeep.verify import verify
from tests.fixtures.people import FRAMES, add_shard, derived_files, derived_rows, open_people, video_id
from tests.fixtures.plugin import LONG
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import Killed, dies_after, run_here, small_config

pytestmark = pytest.mark.slow

UNIT = {"on_at": 0.3, "off_at": 0.2, "least_s": 0.1, "merge_s": 0.1, "relative": True}
REST = Derivation(
    DeriveConfig.model_validate(
        {"baseline": "neutral", "neutral": {"marked_by": "rest", "key": "participant"}, "action_units": UNIT}
    )
)


def extra(participant, rest=None):
    return json.dumps({"participant": participant, "rest": rest})


def smiling(level):
    """Return a smile of one second, 0.4 above a level."""
    return np.where((np.arange(FRAMES) >= 25) & (np.arange(FRAMES) < 50), level + 0.4, level)


TASKS = {
    "anna": (extra("p1"), smiling(0.3)),
    "ben": (extra("p2"), smiling(0.1)),
    "nobody": (None, smiling(0.1)),
    "only": (extra("p3"), smiling(0.1)),
}
# The second half of anna's recording is at rest; of ben's two, one is twice as long.
ANNA_RESTS = {"anna at rest": (extra("p1", "2-4"), np.where(np.arange(FRAMES) < 50, 0.9, 0.3))}
BEN_RESTS = {
    "ben at rest": (extra("p2", "yes"), np.full(FRAMES, 0.1)),
    "ben again": (extra("p2", True), np.where(np.arange(FRAMES) < 50, 0.4, np.nan)),
}


@pytest.fixture
def root(tmp_path):
    add_shard(tmp_path / "out", "tasks", TASKS)
    add_shard(tmp_path / "out", "rests", ANNA_RESTS | BEN_RESTS)
    return tmp_path / "out"


def of_unit(root, *columns):
    found = connect(open_people(root)[0]).sql(f"SELECT video_id, {', '.join(columns)} FROM tracks").fetchall()
    return {name: values for name in TASKS | ANNA_RESTS | BEN_RESTS for key, *values in found if key == video_id(name)}


def test_a_baseline_is_that_of_neutral_videos_of_the_same_participant(root):
    _, partition = open_people(root)
    done = derive_partition(partition, REST)
    assert (done.shards, done.already, done.again, done.neutral_videos, done.note) == (2, 0, 0, 3, "")
    found = of_unit(root, "AU12_baseline", "AU12_episodes", "AU12_active")
    assert found["anna"] == pytest.approx([0.3, 1, 0.25])
    # Median of each, weighted by the time that its face was seen.
    assert found["ben"] == pytest.approx([(0.1 * 2 + 0.4) / 3, 1, 0.25])
    assert found["anna at rest"] == pytest.approx([0.3, 1, 0.5]), "what is not marked is as any other video"
    assert found["only"] == found["nobody"] == [None, None, None], "not known is not zero"
    other = connect(open_people(root)[0]).sql("SELECT AU01_baseline FROM tracks WHERE AU12_baseline < 0.25").fetchall()
    assert other == pytest.approx(np.float32([[0.1]] * 3))
    sql = "SELECT count(*), count(variant), count(DISTINCT video_id) FROM events WHERE kind = 'smile'"
    smiles, told, videos = connect(open_people(root)[0]).sql(sql).fetchall()[0]
    assert smiles > told == smiles - 2 and videos > 3, "with or without cheeks cannot be said of 'only' and 'nobody'"
    assert derive_partition(partition, REST).already == 2


def test_of_several_people_the_one_seen_most_is_the_one_at_rest(tmp_path):
    passing = np.where(np.arange(FRAMES) < 40, 0.9, np.nan)
    rest = {"rest": (extra("p1", "1"), [passing, np.full(FRAMES, 0.2)])}
    add_shard(tmp_path / "out", "a", rest | {"anna": TASKS["anna"]})
    derive_partition(open_people(tmp_path / "out")[1], REST)
    sql = "SELECT DISTINCT AU12_baseline FROM tracks"
    assert connect(open_people(tmp_path / "out")[0]).sql(sql).fetchall() == [(np.float32(0.2),)]


def derived_as_in_a_run(partition):
    with hold(partition, "run-1") as lease:
        return derive_held(lease, REST)


def test_whatever_came_first_the_rows_are_the_same_and_made_again_where_they_must(root, tmp_path):
    derive_partition(open_people(root)[1], REST)
    late = tmp_path / "late"
    output, partition = open_people(late)
    add_shard(late, "tasks", TASKS)
    done = derived_as_in_a_run(partition)
    assert done.neutral_videos == 0 and "column 'rest' marks; available columns: participant, rest" in done.note
    assert of_unit(late, "AU12_baseline")["anna"] == [None]
    add_shard(late, "more", {"else": (extra("p9"), smiling(0.2))})
    add_shard(late, "rests", ANNA_RESTS | BEN_RESTS)
    done = derive_partition(partition, REST)
    assert (done.shards, done.again, done.already) == (3, 1, 0)
    assert len(derived_files(late)) == 6, "rows that were made again took the place of the older ones"
    add_shard(late, "other", {"stranger": (extra("p8", "yes"), smiling(0.2))})
    assert derive_partition(partition, REST).again == 0, "a stranger's neutral video changes nobody else's rows"
    mine = {video_id(name) for name in TASKS | ANNA_RESTS | BEN_RESTS}
    for table, rows in derived_rows(open_people(root)[0]).items():
        assert rows and rows == [row for row in derived_rows(output)[table] if row[3] in mine]


def told_by_status(root):
    return CliRunner().invoke(main, ["status", str(root)], catch_exceptions=False).stdout


def test_an_erased_neutral_video_counts_no_longer(root):
    output, partition = open_people(root)
    derive_partition(partition, REST)
    erase(output, video_id("anna at rest"))
    again = Rederive(partition, lambda: read_commits(partition))
    for commit in read_commits(partition):
        assert list(differences(partition, commit, again)) == []
    assert any("neutral videos have changed, or rows were erased, since" in line for line in again.unfinished)
    assert "2 shards stale: neutral videos or persons have changed, or rows were erased" in told_by_status(root)
    done = derive_partition(partition, REST)
    assert "stale" not in told_by_status(root)
    assert (done.shards, done.again, done.neutral_videos) == (2, 2, 2)
    assert of_unit(root, "AU12_baseline")["anna"] == [None]
    assert derive_partition(partition, REST).already == 2


def test_a_replaced_neutral_video_counts_as_it_is_now(root, tmp_path):
    _, partition = open_people(root)
    derive_partition(partition, REST)
    (old,) = (commit for commit in read_commits(partition) if commit.name == "rests")
    add_shard(root, "new", {"anna at rest": (extra("p1", "yes"), np.full(FRAMES, 0.25))}, work="b")
    rest = without_videos(partition, old, {video_id("anna at rest")}, generation="new", scratch=str(tmp_path))
    write_commit(partition, rest)
    assert derive_partition(partition, REST).again == 1
    assert of_unit(root, "AU12_baseline")["anna"] == [pytest.approx(0.25)]


def test_compaction_keeps_what_rows_were_made_from(root):
    output, partition = open_people(root)
    derive_partition(partition, REST)
    before = derived_rows(output)
    compact_partition(partition)
    (commit,) = (commit for commit in read_commits(partition) if commit.videos)
    assert derived_rows(output) == before and derive_partition(partition, REST).already == 1
    again = Rederive(partition, lambda: read_commits(partition))
    assert list(differences(partition, commit, again)) == [] and again.unfinished == []
    add_shard(root, "late", {"anna rests": (extra("p1", "yes"), np.full(FRAMES, 0.2))})
    derive_partition(partition, REST)
    assert of_unit(root, "AU12_baseline")["anna"] == [pytest.approx(np.float32((0.3 + 2 * 0.2) / 3), abs=0.01)]


def test_shards_that_were_made_from_others_are_made_again_after_compaction(root):
    _, partition = open_people(root)
    derive_partition(partition, REST)
    add_shard(root, "late", {"anna rests": (extra("p1", "yes"), np.full(FRAMES, 0.2)), "anna too": TASKS["anna"]})
    whole = read_commits
    with mock.patch("featray.upkeep.derive.read_commits", lambda held: [c for c in whole(held) if c.name == "late"]):
        derive_partition(partition, REST)  # as if it had been killed before the other shards
    compact_partition(partition)
    assert derive_partition(partition, REST).again == 1
    names = ("anna", "anna at rest", "anna too", "anna rests")
    sql = f"SELECT DISTINCT AU12_baseline FROM tracks WHERE video_id IN {tuple(map(video_id, names))}"
    assert len(connect(open_people(root)[0]).sql(sql).fetchall()) == 1


@pytest.mark.parametrize("after", range(10) if LONG else (1, 5, 9))
def test_killed_anywhere_and_run_again_the_tables_are_equal(root, tmp_path, after):
    """Killed before each upload, commit and deletion while rows are made again."""
    _, partition = open_people(root)
    derive_partition(partition, REST)
    add_shard(root, "late", {"anna rests": (extra("p1", "yes"), np.full(FRAMES, 0.2))})
    shutil.copytree(root, tmp_path / "undisturbed")
    derive_partition(open_people(tmp_path / "undisturbed")[1], REST)
    die = dies_after(after)
    with (
        mock.patch.object(writer, "upload", die(writer.upload)),
        mock.patch.object(derived_module, "write_commit", die(write_commit)),
        mock.patch.object(HeldPartition, "delete", die(HeldPartition.delete)),
        pytest.raises(Killed),
    ):
        derive_partition(partition, REST)
    derive_partition(partition, REST)
    assert derived_rows(open_people(root)[0]) == derived_rows(open_people(tmp_path / "undisturbed")[0])
    assert derived_files(root) == derived_files(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("yes", WHOLE), (True, WHOLE), (1, WHOLE), (1.0, WHOLE), ("TRUE ", WHOLE),
        ("", ()), (None, ()), ("no", ()), (0, ()), (False, ()),
        ("2.5-10", ((2_500_000, 10_000_000),)), ("60 - 65; 0-5", ((0, 5_000_000), (60_000_000, 65_000_000))),
    ],
)  # fmt: skip
def test_marks(text, spans):
    assert read_mark("v", {"rest": text}, NeutralConfig(marked_by="rest")).spans_us == spans


@pytest.mark.parametrize("text", ["maybe", "5-5", "5-", f"0-{'9' * 400}", f"0-{'9' * 30}", [[]], {"a": 1}])
def test_marks_that_are_none(text):
    with pytest.raises(ValueError, match=re.escape(str(text))):
        read_mark("v", {"rest": text}, NeutralConfig(marked_by="rest"))


def test_marks_by_value_and_key():
    config = NeutralConfig(marked_by="condition", value="baseline", key="participant")
    assert read_mark("v", {"condition": "baseline", "participant": 7}, config) == read_mark(
        "w", {"condition": " baseline", "participant": "7"}, config
    )
    assert read_mark("v", {"condition": "stress", "participant": 7}, config).spans_us == ()
    assert read_mark("v", {"condition": "baseline", "participant": ""}, config).key is None
    assert read_mark("v", {"rest": "yes"}, NeutralConfig(marked_by="rest")).key == "v"


@pytest.mark.parametrize("text", ["perhaps", "5-2", "1-2-3", "-1-2", "3"])
def test_a_mark_that_is_none_counts_as_no_and_is_said(text, tmp_path, caplog):
    add_shard(tmp_path / "out", "a", {"anna": (extra("p1", text), smiling(0.1))})
    done = derived_as_in_a_run(open_people(tmp_path / "out")[1])
    assert done.neutral_videos == 0
    (line,) = caplog.messages
    assert f"rest is '{text}', which is neither yes or no nor spans" in line and video_id("anna") in line


def test_the_command_says_what_it_found(root):
    options = ["--set", "derive.baseline=neutral", "--set", "derive.neutral={marked_by: rest, key: participant}"]
    done = CliRunner().invoke(main, ["derive", str(root), *options])
    assert done.exit_code == 0 and ": 2 shards derived; 7 tracks, " in done.stdout
    assert "; 3 neutral videos" in done.stdout
    add_shard(root, "late", {"anna rests": (extra("p1", "yes"), np.full(FRAMES, 0.2))})
    done = CliRunner().invoke(main, ["derive", str(root), *options])
    assert ": 3 shards derived, 2 of them since their neutral videos have changed or rows were erased; " in done.stdout
    for lone in (options[:2], options[2:]):
        done = CliRunner().invoke(main, ["derive", str(root), *lone])
        assert done.exit_code == 2 and "neutral" in done.stderr and done.stderr.count("\n") == 1


def test_without_any_neutral_video_the_command_is_refused_and_writes_nothing(root):
    before = derived_files(root)
    options = ["--set", "derive.baseline=neutral", "--set", "derive.neutral={marked_by: rest, value: calm}"]
    done = CliRunner().invoke(main, ["derive", str(root), *options])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert (
        "no baselines: there is no video that column 'rest' marks as 'calm' (it has values such as 2-4, " in done.stderr
    )
    assert " such as 2-4, True, yes); available columns: participant, rest; " in done.stderr
    assert done.stderr.endswith("; nothing was derived\n")
    assert derived_files(root) == before and all(not commit.derived for commit in read_commits(open_people(root)[1]))


@pytest.mark.parametrize(
    ("key", "participant", "why"),
    [
        ("Participant", "p1", "there is no column 'Participant', which derive.neutral.key names"),
        ("participant", "", "the videos that it marks have no text in column 'participant'"),
    ],
)
def test_a_marked_video_without_a_key_is_told_as_such(tmp_path, key, participant, why):
    """Not that no video is marked, with the mark among the values there are."""
    add_shard(tmp_path / "out", "a", {"anna": (extra(participant, "yes"), smiling(0.1))})
    options = ["--set", "derive.baseline=neutral", "--set", f"derive.neutral={{marked_by: rest, key: {key}}}"]
    done = CliRunner().invoke(main, ["derive", str(tmp_path / "out"), *options])
    assert done.exit_code == 1 and f"no baselines: {why}; available columns: participant, rest; " in done.stderr


def test_when_the_last_neutral_video_was_erased_its_baselines_go(tmp_path):
    add_shard(tmp_path / "out", "a", {"anna": TASKS["anna"]})
    add_shard(tmp_path / "out", "b", ANNA_RESTS)
    output, partition = open_people(tmp_path / "out")
    derive_partition(partition, REST)
    assert of_unit(tmp_path / "out", "AU12_baseline")["anna"] != [None]
    erase(output, video_id("anna at rest"))
    assert "no baselines" in derive_partition(partition, REST).note
    assert of_unit(tmp_path / "out", "AU12_baseline")["anna"] == [None]


def test_a_run_derives_at_its_end_when_all_is_published(inputs, small_network, tmp_path):
    manifest = tmp_path / "list.csv"
    lines = ["uri,participant,rest", f"{inputs}/anna.mp4,p1,no", f"{inputs}/ben.mp4,p1,yes"]
    manifest.write_text("\n".join(lines[:2]))
    derive = REST.config.model_dump()
    config = small_config([manifest], tmp_path / "out", small_network, decode=SPARSE, derive=derive)
    run_here(config)
    output = open_output(str(tmp_path / "out"))
    sql = "SELECT AU12_baseline, AU12_episodes, AU12_p50 FROM tracks ORDER BY AU12_p50"
    assert {row[:2] for row in connect(output).sql(sql).fetchall()} == {(None, None)}
    manifest.write_text("\n".join(lines))
    run_here(config)
    rows = connect(output).sql(sql).fetchall()
    assert len({row[0] for row in rows}) == 1 and rows[0][0] is not None and len(rows) == 2
    assert verify(output).problems == []
    (partition,) = list_partitions(output)
    assert derive_partition(partition, REST).already == 2
