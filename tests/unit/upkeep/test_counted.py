"""What the driver keeps of what it has published: numbers."""

import weakref

from featray.run import shards
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import LocalSession, run_here, small_config


class Watching(LocalSession):
    """Finds out whether commits that were handed over are still held when the next ones are asked for."""

    commits: list[weakref.ref]

    def published(self, *, wait):
        assert not any(commit() for commit in self.commits)
        done = super().published(wait=wait)
        self.commits += [weakref.ref(commit) for commit in done]
        return done


def test_commits_are_counted_as_they_come_and_let_go(inputs, small_network, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_VIDEOS", 1)
    Watching.commits = []
    summary = run_here(small_config([f"{inputs}/*.mp4"], tmp_path / "out", small_network, decode=SPARSE), Watching)
    assert len(Watching.commits) == 5
    assert (summary.videos, summary.frames, summary.faces) == ({"ok": 3, "partial": 1, "failed": 1}, 27, 25)
    again = run_here(small_config([f"{inputs}/*.mp4"], tmp_path / "out", small_network, decode=SPARSE), Watching)
    assert (again.videos, again.frames, again.faces) == ({"ok": 0, "partial": 0, "failed": 0}, 0, 0)
