"""The driver keeps only numbers of what it has published."""

import gc
import weakref

from featray.run import shards
from featray.run.local_session import LocalSession
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import run_here, small_config


def test_commits_are_counted_as_they_come_and_let_go(inputs, small_network, tmp_path, monkeypatch):
    """Commits that were handed over must be released before the next ones are requested."""
    handed, real = [], LocalSession.published

    def published(self, *, wait):
        # Python 3.13 keeps the frames that a caught exception passed through until the next collection.
        gc.collect()
        assert not any(commit() for commit in handed)
        done = real(self, wait=wait)
        handed.extend(weakref.ref(commit) for commit in done)
        return done

    monkeypatch.setattr(LocalSession, "published", published)
    monkeypatch.setattr(shards, "SHARD_VIDEOS", 1)
    summary = run_here(small_config([f"{inputs}/*.mp4"], tmp_path / "out", small_network, decode=SPARSE))
    assert len(handed) == 5
    assert (summary.videos, summary.frames, summary.faces) == ({"ok": 3, "partial": 1, "failed": 1}, 27, 25)
    again = run_here(small_config([f"{inputs}/*.mp4"], tmp_path / "out", small_network, decode=SPARSE))
    assert (again.videos, again.frames, again.faces) == ({"ok": 0, "partial": 0, "failed": 0}, 0, 0)
