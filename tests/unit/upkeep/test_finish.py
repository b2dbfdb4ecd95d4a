"""The landed work of a killed driver is published without Ray and without the sources."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.schema import PER_VIDEO_TABLES
from featray.tables.commits import read_commits, read_manifests
from featray.tables.layout import list_partitions, open_output
from featray.upkeep.finish import finish_partition
from featray.upkeep.verify import verify
from tests.fixtures.handmade import write_output
from tests.fixtures.outputs import rows
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import run_here, small_config


@pytest.fixture
def killed(landed, tmp_path):
    shutil.copytree(landed, tmp_path / "killed")
    return open_output(str(tmp_path / "killed"))


def facts(output, table):
    passing = {"run_id", "published_at", "at"}
    return [{k: v for k, v in row.items() if k not in passing} for row in rows(output.root.path, table)]


def test_what_has_landed_is_published(killed, out, inputs, small_network):
    before = verify(killed)
    assert before.problems == [] and before.videos == 0 and len(before.unfinished) == 2
    result = CliRunner().invoke(main, ["publish", killed.root.path])
    assert result.exit_code == 0 and "5 videos, 27 frames, 25 faces" in result.output
    assert {t: facts(killed, t) for t in PER_VIDEO_TABLES} == {t: facts(out, t) for t in PER_VIDEO_TABLES}
    report = verify(killed)
    assert (report.problems, report.unfinished, report.videos) == ([], [], 5)
    assert CliRunner().invoke(main, ["publish", killed.root.path]).output == "nothing to finish\n"
    (run,) = rows(killed.root.path, "runs")
    assert run["status"] == "interrupted"
    config = small_config([f"{inputs}/*.mp4"], killed.root.path, small_network, decode=SPARSE)
    assert run_here(config).status == "nothing_to_do"


def test_a_unit_that_the_plan_does_not_have_is_left_out(killed):
    (partition,) = list_partitions(killed)
    last = next(Path(partition.landing().path).rglob("u*-last.arrow"))
    shutil.copy(last, last.with_name("u000099-p0000-last.arrow"))
    done = finish_partition(partition)
    assert len(done.published) == 1 and done.waiting == [] and verify(killed).problems == []


def test_what_has_not_landed_waits_for_the_next_run(killed, inputs, small_network):
    (partition,) = list_partitions(killed)
    landing = Path(partition.landing().path)
    next(landing.rglob("u*-last.arrow")).unlink()
    done = finish_partition(partition)
    assert done.published == [] and [(landed, units) for _, landed, units in done.waiting] == [(4, 5)]
    assert len(read_manifests(partition)) == 1
    shutil.rmtree(next(landing.iterdir()))
    result = CliRunner().invoke(main, ["publish", killed.root.path])
    assert "so far; the next run resumes from there" in result.output
    config = small_config([f"{inputs}/*.mp4"], killed.root.path, small_network, decode=SPARSE)
    assert sum(run_here(config).videos.values()) == 5
    assert verify(killed).problems == []
    assert len([c for c in read_commits(partition) if c.videos]) == 1


def test_a_file_that_was_being_written_is_removed(tmp_path):
    """It is of no open shard: the shard was published by a later run, or its driver died and `publish` finished it."""
    write_output(tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    partition = next(one for one in list_partitions(output) if one.dataset == "one")
    half = Path(partition.folder("faces").path, "site=oslo", ".part-0123456789ab-000.parquet.0f.tmp")
    half.write_bytes(b"PAR1")
    (line,) = verify(output).unfinished
    assert "`featray publish` removes it" in line
    assert finish_partition(partition).leftovers == 1 and not half.exists()
    assert verify(output).unfinished == []
