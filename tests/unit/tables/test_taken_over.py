"""After a takeover, the former holder changes nothing: a run, a compaction, an erasure, a publish."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from featray.errors import LeaseError
from featray.tables.commits import ManifestVideo, ShardManifest, read_commits
from featray.tables.layout import list_partitions, open_output
from featray.tables.lease import HeldPartition, UnheldPartition, hold
from featray.tables.publish import PublishSettings, publish_shard
from featray.tables.runs import begin_run, close_killed_runs, end_run
from featray.upkeep import compact, erase, finish
from featray.upkeep.recover import recover, sweep_temporary
from featray.upkeep.verify import verify
from tests.fixtures.outputs import ids, rows

pytestmark = pytest.mark.slow


def take_over(lease):
    """Take the lease for a second run although the first is alive, as after a long pause."""
    with lease:
        pass
    return hold(lease.partition, "second")


def tree(output, suffix=""):
    """Return every file with its bytes, except leases and notes of erasures, which lie beside all partitions."""
    root = Path(output.root.path)
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    mine = ("_featray/leases/", "_featray/erased/")
    return {
        name: path.read_bytes() for name, path in files.items() if name.endswith(suffix) and not name.startswith(mine)
    }


@pytest.fixture
def in_the_making(out, partition):
    """Return a first run that was taken over, while a second writes: its row, an uncommitted file, an upload."""
    first = hold(partition, "first")
    take_over(first)
    row = {**rows(out.root.path, "runs")[0], "run_id": "second", "finished_at": None}
    begin_run(UnheldPartition(partition), row)
    folder = Path(partition.folder("faces").path)
    some = next(folder.glob("*.parquet"))
    shutil.copy(some, folder / "part-second-000.parquet")
    shutil.copy(some, folder / ".part-second-001.parquet.0123.tmp")
    return first


@pytest.mark.parametrize(
    "change",
    [
        lambda partition: recover(partition, "first"),
        close_killed_runs,
        sweep_temporary,
        lambda partition: end_run(partition, {**rows(partition.output.root.path, "runs")[0]}),
    ],
    ids=["recover", "close_killed_runs", "sweep_temporary", "end_run"],
)
def test_a_run_leaves_alone_what_the_next_one_is_making(out, partition, in_the_making, change):
    before = tree(out)
    with pytest.raises(LeaseError, match="was taken over"):
        change(in_the_making.partition)
    assert tree(out) == before


def test_a_shard_whose_output_was_moved_is_said_to_be_without_output(out, partition, tmp_path):
    """And not that its units, which are read from there, have not landed."""
    video = ManifestVideo("0" * 16, "file:///a.mp4", "0" * 64)
    manifest = ShardManifest("s", "first", {}, [video])
    settings = PublishSettings(run_id="first", tables=("faces",), path_fields=(), footer={})
    with pytest.raises(LeaseError, match="was deleted during the run"), hold(partition, "first") as lease:
        Path(out.root.path).rename(tmp_path / "moved")
        publish_shard(lease.partition, manifest, settings)
    assert not Path(out.root.path).exists()


@dataclass(frozen=True)
class Losing(HeldPartition):
    """A partition whose lease is lost at the n-th check, n from 0; it records the files at that moment."""

    n: int = 0
    asked: list[int] = field(default_factory=list)
    seen: dict[str, bytes] = field(default_factory=dict)

    def check(self):
        self.asked.append(1)
        if len(self.asked) == self.n + 1:
            self.seen.update(tree(self.output))
            with hold(self, "second"):
                pass
        super().check()


@pytest.fixture
def losing(monkeypatch):
    """Return a function that has a module's lease taken over at its n-th check, and returns the lost partitions."""

    def set_up(module, n):
        lost = []

        def hold_and_lose(partition, name):
            lease = hold(partition, name)
            held = lease.partition
            lost.append(Losing(held.output, held.dataset, held.release, held.number, held.token, n))
            lease._write(released=True)  # as if it had expired
            lease.partition = lost[0]
            return lease

        monkeypatch.setattr(module, "hold", hold_and_lose)
        return lost

    return set_up


@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_a_compaction_stops(out, partition, losing, monkeypatch, n):
    lost = losing(compact, n)
    with pytest.raises(LeaseError, match="was taken over"):
        compact.compact_partition(partition)
    assert tree(out) == lost[0].seen
    monkeypatch.undo()
    assert compact.compact_partition(partition).files == 9
    report = verify(out)
    assert ([p.line() for p in report.problems], report.unfinished) == ([], [])


@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_an_erasure_stops(out, losing, monkeypatch, n):
    video = ids(out)["anna"]
    lost = losing(erase, n)
    with pytest.raises(LeaseError, match="was taken over"):
        erase.erase(out, video)
    assert tree(out) == lost[0].seen
    monkeypatch.undo()
    erase.erase(out, video)
    report = verify(out)
    assert ([p.line() for p in report.problems], report.unfinished, report.videos) == ([], [], 4)


def test_a_publish_stops(landed, tmp_path, losing):
    shutil.copytree(landed, tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    (partition,) = list_partitions(output)
    lost = losing(finish, 2)
    with pytest.raises(LeaseError, match="was taken over"):
        finish.finish_partition(partition)
    # It abandons its shard, and deletes the files that it had uploaded for it.
    assert len([path for path in lost[0].seen if path.endswith(".parquet")]) > len(tree(output, ".parquet"))
    assert not any(commit.videos for commit in read_commits(partition))
    assert verify(output).problems == []
