"""Commit records: what is published, file by file and video by video.

A commit is one small object, written last and atomically. What no commit names is not
published, whatever lies in the table folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from featray.errors import OutputError, StorageError
from featray.sources.storage import delete, list_files, read_bytes, storage_errors, write_bytes
from featray.tables.layout import Partition


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
        rewrites: older commits as they read from the moment this one is written; see `replace.py`.
    """

    name: str
    run_id: str
    published_at_us: int
    files: list[CommittedFile]
    videos: list[CommittedVideo] = field(default_factory=list)
    rewrites: list[Commit] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: bytes | str) -> Commit:
        """Parse a commit record."""
        return cls._of(json.loads(text))

    @classmethod
    def _of(cls, data: dict[str, Any]) -> Commit:
        files = [CommittedFile(**entry) for entry in data.pop("files")]
        videos = [CommittedVideo(**entry) for entry in data.pop("videos")]
        rewrites = [cls._of(entry) for entry in data.pop("rewrites", [])]
        return cls(files=files, videos=videos, rewrites=rewrites, **data)


def write_commit(partition: Partition, commit: Commit) -> None:
    """Publish: from here on the commit's files count."""
    write_bytes(partition.commit(commit.name), json.dumps(asdict(commit)).encode())


def read_commit(partition: Partition, name: str) -> Commit | None:
    """One commit, or None if there is none of that name."""
    try:
        return Commit.from_json(read_bytes(partition.commit(name)))
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def read_commits(partition: Partition) -> list[Commit]:
    """All commits of a partition, with rewrites that are still to be carried out applied."""
    commits = {commit.name: commit for commit in stored_commits(partition)}
    pending = [rewritten for commit in commits.values() for rewritten in commit.rewrites]
    commits |= {rewritten.name: rewritten for rewritten in pending}
    return list(commits.values())


def stored_commits(partition: Partition) -> Iterator[Commit]:
    """Commits as they lie there; fetched together, parsed one by one."""
    folder = partition.commit()
    paths = [path for path in list_files(folder) if path.endswith(".json")]
    with storage_errors(folder.uri):
        contents = folder.fs.cat(paths, on_error="raise") if paths else {}
    for path in paths:
        # fsspec answers with bare bytes when it is asked for a single path
        text = contents[path] if isinstance(contents, dict) else contents
        try:
            yield Commit.from_json(text)
        except (ValueError, KeyError, TypeError):
            name = path.rsplit("/", 1)[-1]
            raise OutputError(f"{folder.uri}/{name}: damaged commit record; run `featray verify`") from None


@dataclass(frozen=True)
class ShardManifest:
    """Which videos an open shard holds; written before their work starts, deleted after the commit.

    Attributes:
        fields: the path-field values that all its videos share: they lie in one partition folder.
    """

    shard: str
    run_id: str
    fields: dict[str, str]
    videos: list[dict[str, Any]]


def write_manifest(partition: Partition, manifest: ShardManifest) -> None:
    """Open a shard."""
    write_bytes(partition.shard(manifest.shard), json.dumps(asdict(manifest)).encode())


def read_manifests(partition: Partition) -> list[ShardManifest]:
    """All open shards."""
    folder = partition.shard()
    paths = list_files(folder)
    with storage_errors(folder.uri):
        return [ShardManifest(**json.loads(folder.fs.cat_file(path))) for path in paths if path.endswith(".json")]


def close_shard(partition: Partition, shard: str) -> None:
    """Forget an open shard."""
    delete(partition.shard(shard))
