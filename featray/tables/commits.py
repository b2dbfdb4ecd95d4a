"""Tables. Commit records: what is published, file by file and video by video.

A commit is one small object, written last and atomically. What no commit names is not
published, whatever lies in the table folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from featray.errors import NotFound, OutputError
from featray.records import dump, load
from featray.store.exclusive import create_bytes
from featray.store.storage import delete, list_files, read_bytes, storage_errors, write_bytes
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition

_FETCHED_TOGETHER = 32
"""Commits of full shards have some 250 kB each."""


@dataclass(frozen=True)
class CommittedFile:
    """One published file; `path` is relative to the output's root."""

    table: str
    path: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class CommittedVideo:
    """One published video, with its counts."""

    video_id: str
    uri: str
    work_key: str
    status: str
    frames: int
    faces: int


@dataclass(frozen=True)
class Commit:
    """What one shard, or one run's row in `runs`, has published.

    Attributes:
        published_at_us: 0 for a cancelled shard: one that holds nothing and only keeps its name from being committed.
        rewrites: older commits as they read from the moment this one is written; see `replace.py`.
    """

    name: str
    run_id: str
    published_at_us: int
    files: list[CommittedFile]
    videos: list[CommittedVideo] = field(default_factory=list)
    rewrites: list[Commit] = field(default_factory=list)

    @property
    def cancelled(self) -> bool:
        """Whether this is a shard that was given up before it was published."""
        return not self.published_at_us


def create_commit(partition: Partition, commit: Commit) -> Commit:
    """Publish a shard, once: from here on the commit's files count. The commit that is there afterwards.

    Where one of that name is there already, it stays: another try of the same task was
    faster, or a run that took over has cancelled the shard.
    """
    while not create_bytes(partition.commit(commit.name), dump(commit)):
        there = read_commit(partition, commit.name)
        if there is not None:
            return there
    return commit


def cancel_shard(partition: Partition, shard: str, run_id: str) -> Commit:
    """Give up an open shard of a run that is gone; the commit that is there afterwards.

    If that one is not `cancelled`, the shard was published after all.
    """
    return create_commit(partition, Commit(shard, run_id, 0, []))


def write_commit(partition: HeldPartition, commit: Commit) -> None:
    """Write a commit, over an older one of its name if there is one; asks first whether that is still allowed."""
    partition.check()
    write_bytes(partition.commit(commit.name), dump(commit))


def read_commit(partition: Partition, name: str) -> Commit | None:
    """One commit, or None if there is none of that name."""
    try:
        return load(Commit, read_bytes(partition.commit(name)))
    except NotFound:
        return None


def read_commits(partition: Partition) -> list[Commit]:
    """All commits of a partition, with rewrites that are still to be carried out applied."""
    commits = {commit.name: commit for commit in stored_commits(partition)}
    pending = [rewritten for commit in commits.values() for rewritten in commit.rewrites]
    commits |= {rewritten.name: rewritten for rewritten in pending}
    return list(commits.values())


def stored_commits(partition: Partition) -> Iterator[Commit]:
    """Commits as they lie there, in the order of their names; a few are fetched together and held."""
    folder = partition.commit()
    paths = [path for path in list_files(folder) if path.endswith(".json")]
    for start in range(0, len(paths), _FETCHED_TOGETHER):
        page = paths[start : start + _FETCHED_TOGETHER]
        with storage_errors(folder.uri):
            contents = folder.fs.cat(page, on_error="raise")
        for path in page:
            # fsspec answers with bare bytes when it is asked for a single path
            text = contents[path] if isinstance(contents, dict) else contents
            try:
                yield load(Commit, text)
            except ValueError:
                name = path.rsplit("/", 1)[-1]
                raise OutputError(f"{folder.uri}/{name}: damaged commit record; run `featray verify`") from None


@dataclass(frozen=True)
class ManifestVideo:
    """One video of an open shard, as publishing needs to know it; names are those of `videos`.

    Attributes:
        extra: the other columns of the manifest that named it, as JSON.
        replaces: the published shard that holds older rows of it, if one does.
    """

    video_id: str
    uri: str
    work_key: str
    fields: dict[str, str | None] = field(default_factory=dict)
    member: str | None = None
    size_bytes: int = -1
    content_id: str = ""
    extra: str | None = None
    replaces: str | None = None


@dataclass(frozen=True)
class ShardManifest:
    """Which videos an open shard holds; written before their work starts, deleted after the commit.

    Attributes:
        fields: the path-field values that all its videos share: they lie in one partition folder; null where a
            path did not fit the pattern.
    """

    shard: str
    run_id: str
    fields: dict[str, str | None]
    videos: list[ManifestVideo]


def write_manifest(partition: Partition, manifest: ShardManifest) -> None:
    """Open a shard."""
    write_bytes(partition.shard(manifest.shard), dump(manifest))


def read_manifests(partition: Partition) -> list[ShardManifest]:
    """All open shards."""
    folder = partition.shard()
    paths = list_files(folder)
    with storage_errors(folder.uri):
        return [load(ShardManifest, folder.fs.cat_file(path)) for path in paths if path.endswith(".json")]


def close_shard(partition: Partition, shard: str) -> None:
    """Forget an open shard."""
    delete(partition.shard(shard))
