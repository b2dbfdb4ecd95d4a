"""Upkeep. Index the commits of a partition for verification: read one by one into DuckDB, which spills to disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import duckdb
import pyarrow as pa

from featray.errors import counted
from featray.records import load
from featray.tables.commits import Commit, read_manifests, stored_commits
from featray.tables.database import literal
from featray.tables.layout import Partition
from featray.tables.runs import running_rows

_VIDEOS = pa.schema(
    [
        ("commit", pa.string()),
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("work_key", pa.string()),
        ("status", pa.string()),
        ("frames", pa.int64()),
        ("faces", pa.int64()),
    ]
)


@dataclass
class CommitIndex:
    """An index of commits, with pending rewrites applied.

    Attributes:
        damaged: records that cannot be read, one line each.
        unfinished: unfinished work, one line each.
        replaced: paths of the files of commits that are still to be rewritten, which are then deleted.
    """

    db: duckdb.DuckDBPyConnection
    damaged: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    replaced: set[str] = field(default_factory=set)

    def commits(self) -> Iterator[Commit]:
        """Yield all commits in the order of their names."""
        last = ""
        while True:
            page = self.db.execute(
                "SELECT name, text FROM commits WHERE name > ? ORDER BY name LIMIT 16", [last]
            ).fetchall()
            if not page:
                return
            for _, text in page:
                yield load(Commit, text)
            last = page[-1][0]

    def select_videos(self, names: list[str]) -> None:
        """Create view `committed` with the videos of these commits, and `derived_videos` with their derivations."""
        listed = ", ".join(map(literal, names))
        self.db.execute(
            f"CREATE OR REPLACE VIEW committed AS SELECT * FROM committed_videos WHERE commit IN ({listed})"
        )

        self.db.execute(
            "CREATE OR REPLACE VIEW derived_videos AS "
            "SELECT video_id, derivation FROM committed JOIN derivations USING (commit)"
        )

    def videos_twice(self) -> list[tuple[str, list[str]]]:
        """Return the first hundred videos that are in several commits, with these commits."""
        sql = "SELECT video_id, list(commit) FROM committed_videos GROUP BY video_id HAVING count(*) > 1 LIMIT 100"
        found: list[tuple[str, list[str]]] = self.db.execute(sql).fetchall()
        return found

    def has_video(self, video_id: str) -> bool:
        """Return whether a commit holds the video."""
        return bool(self.db.execute("SELECT 1 FROM committed_videos WHERE video_id = ?", [video_id]).fetchall())


def load_commits(partition: Partition, db: duckdb.DuckDBPyConnection) -> CommitIndex:
    """Read all commits of a partition into tables `commits` and `committed_videos`."""
    index = CommitIndex(db)
    db.execute("CREATE TABLE commits (name VARCHAR, text VARCHAR)")
    db.register("empty_videos", _VIDEOS.empty_table())
    db.execute("CREATE TABLE committed_videos AS SELECT * FROM empty_videos")
    db.execute("CREATE TABLE derivations (commit VARCHAR, derivation VARCHAR)")
    pending: list[Commit] = []
    for commit in stored_commits(partition, index.damaged):
        pending += commit.rewrites
        _store(db, commit)
    if pending:
        index.unfinished.append(f"{counted(len(pending), 'commit')} still to be rewritten; the next run rewrites them")
    for rewritten in pending:
        for (text,) in db.execute("SELECT text FROM commits WHERE name = ?", [rewritten.name]).fetchall():
            index.replaced |= {file.path for file in load(Commit, text).files}
        db.execute("DELETE FROM commits WHERE name = ?", [rewritten.name])
        db.execute("DELETE FROM committed_videos WHERE commit = ?", [rewritten.name])
        db.execute("DELETE FROM derivations WHERE commit = ?", [rewritten.name])
        _store(db, rewritten)
    index.unfinished += [f"shard {m.shard} of run {m.run_id} is open" for m in read_manifests(partition, index.damaged)]
    index.unfinished += [
        f"run {row['run_id']} is active, or was killed" for row in running_rows(partition, index.damaged)
    ]
    return index


def _store(db: duckdb.DuckDBPyConnection, commit: Commit) -> None:
    text = json.dumps({**asdict(commit), "rewrites": []})
    db.execute("INSERT INTO commits VALUES (?, ?)", [commit.name, text])
    for derivation in commit.derived:
        db.execute("INSERT INTO derivations VALUES (?, ?)", [commit.name, derivation])
    rows = [{"commit": commit.name, **asdict(video)} for video in commit.videos]
    if rows:
        db.register("new_videos", pa.Table.from_pylist(rows, schema=_VIDEOS))
        db.execute("INSERT INTO committed_videos SELECT * FROM new_videos")
        db.unregister("new_videos")
