"""Tables. Commit records: what is published, file by file and video by video.

A commit is one small object, written last and atomically. What no commit names is not
published, whatever lies in the table folders.

Commits and manifests may have been written by somebody else. They are read by `parse_commit` and `parse_manifest`
alone, which refuse every name that is none, and so every path that leads out of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from featray.errors import NotFound, OutputError, on_one_line
from featray.records import (
    Count,
    DerivationName,
    Digest,
    FieldName,
    Micros,
    RecordName,
    TablePath,
    VideoId,
    WorkKey,
    dump,
    load,
)
from featray.schema import ALL_TABLES, PER_VIDEO_TABLES
from featray.store.exclusive import create_bytes
from featray.store.storage import (
    Version,
    delete,
    list_versions,
    read_listed,
    read_record,
    storage_errors,
    write_bytes,
)
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition

_FETCHED_TOGETHER = 32
"""Commits of full shards have some 250 kB each."""


@dataclass(frozen=True)
class CommittedFile:
    """One published file; `path` is relative to the output's root."""

    table: str
    path: TablePath
    rows: Count
    size_bytes: Count
    sha256: str


@dataclass(frozen=True)
class CommittedVideo:
    """One published video, with its counts."""

    video_id: VideoId
    uri: str
    work_key: WorkKey
    status: Annotated[str, Field(pattern="^(ok|partial|failed)$")]
    frames: Count
    faces: Count


@dataclass(frozen=True)
class Commit:
    """The record that publishes one shard, or one run's row in `runs`.

    Attributes:
        run_id: empty where no run wrote it, but an erasure.
        published_at_us: 0 for a cancelled shard: one that holds nothing and only keeps its name from being committed.
        rewrites: older commits as they read from the moment this one is written; see `replace.py`.
        several_streams: videos with more video streams than the one that was taken, when it was first written.
        derived: which derivations of its rows are among its files, and when each was made, microseconds since the
            epoch, UTC; empty in commits of older versions.
        derived_from: of derivations that need videos of other shards, what they were when the rows were made: by the
            digest of whose they are, a digest of those videos. Where one differs now, the rows are to be made again.
    """

    name: RecordName
    run_id: RecordName | Literal[""]
    published_at_us: Micros
    files: list[CommittedFile]
    videos: list[CommittedVideo] = field(default_factory=list)
    rewrites: list[Commit] = field(default_factory=list)
    several_streams: Count = 0
    derived: dict[DerivationName, Micros] = field(default_factory=dict)
    derived_from: dict[DerivationName, dict[Digest, Digest]] = field(default_factory=dict)

    @property
    def cancelled(self) -> bool:
        """Return whether this is a shard that was given up before it was published."""
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


def parse_commit(name: str, text: bytes) -> Commit:
    """The commit that is stored under a name.

    Raises:
        ValueError: it is damaged, or names what no commit names.
    """
    commit = load(Commit, text)
    if commit.name != name:
        raise ValueError("is the commit of another name")
    for file in (file for one in (commit, *commit.rewrites) for file in one.files):
        if file.table not in ALL_TABLES or not file.path.startswith(f"{file.table}/"):
            raise ValueError("names a file of no table")
    return commit


def read_commit(partition: Partition, name: str) -> Commit | None:
    """One commit, or None if there is none of that name.

    Raises:
        OutputError: it is damaged.
    """
    place = partition.commit(name)
    try:
        return parse_commit(name, read_record(place))
    except NotFound:
        return None
    except ValueError:
        raise OutputError(f"{place.uri}: {_DAMAGED_COMMIT}") from None


def read_commits(partition: Partition) -> list[Commit]:
    """All commits of a partition, with rewrites that are still to be carried out applied."""
    commits = {commit.name: commit for commit in stored_commits(partition)}
    pending = [rewritten for commit in commits.values() for rewritten in commit.rewrites]
    commits |= {rewritten.name: rewritten for rewritten in pending}
    return list(commits.values())


def stored_commits(partition: Partition, damaged: list[str] | None = None) -> Iterator[Commit]:
    """Commits as they lie there, in the order of their names; a few are fetched together and held.

    Args:
        partition: whose.
        damaged: takes a line for each record that cannot be read, which is then passed over.

    Raises:
        OutputError: a record cannot be read, and `damaged` is None.
    """
    for _, commit in commits_at(partition, list_versions(partition.commit(), suffix=".json")):
        if isinstance(commit, Commit):
            yield commit
        elif commit is not None and damaged is None:
            raise OutputError(commit)
        elif commit is not None and damaged is not None:
            damaged.append(commit)


def commits_at(
    partition: Partition, listed: dict[str, Version], *, may_be_gone: bool = False
) -> Iterator[tuple[str, Commit | str | None]]:
    """Read commits at paths that a listing gave.

    Args:
        partition: whose.
        listed: what `list_versions` gave; a few are fetched together and held.
        may_be_gone: whether one that was deleted after the listing is no error.

    Yields:
        Path and commit; instead of a damaged one, a line about it; None where it is gone.

    Raises:
        StorageError: one cannot be read.
    """
    paths = list(listed)
    for start in range(0, len(paths), _FETCHED_TOGETHER):
        page = {path: listed[path] for path in paths[start : start + _FETCHED_TOGETHER]}
        for path, text in read_listed(partition.commit(), page).items():
            if isinstance(text, FileNotFoundError) and may_be_gone:
                yield path, None
            else:
                yield path, _commit_or_problem(partition.commit().uri, path.rsplit("/", 1)[-1], text)


def _commit_or_problem(folder: str, file: str, text: bytes | Exception) -> Commit | str:
    if isinstance(text, OutputError):
        return str(text)
    if isinstance(text, Exception):
        with storage_errors(f"{folder}/{file}"):
            raise text
    try:
        return parse_commit(file.removesuffix(".json"), text)
    except ValueError:
        return on_one_line(f"{folder}/{file}: {_DAMAGED_COMMIT}")


_DAMAGED_COMMIT = (
    "damaged commit record, so that its files and videos are not known; put back a copy of it, or delete it and run "
    "again, which does its videos anew"
)


@dataclass(frozen=True)
class ManifestVideo:
    """One video of an open shard, as publishing needs to know it; names are those of `videos`.

    Attributes:
        extra: the other columns of the manifest that named it, as JSON.
        replaces: the published shard that holds older rows of it, if one does.
    """

    video_id: VideoId
    uri: str
    work_key: WorkKey
    fields: dict[FieldName, str | None] = field(default_factory=dict)
    member: str | None = None
    size_bytes: Annotated[int, Field(ge=-1, lt=1 << 62)] = -1
    content_id: str = ""
    extra: str | None = None
    replaces: RecordName | None = None


@dataclass(frozen=True)
class ShardManifest:
    """Which videos an open shard holds; written before their work starts, deleted after the commit.

    Attributes:
        fields: the path-field values that all its videos share: they lie in one partition folder; null where a
            path did not fit the pattern.
    """

    shard: RecordName
    run_id: RecordName
    fields: dict[FieldName, str | None]
    videos: list[ManifestVideo]


def write_manifest(partition: Partition, manifest: ShardManifest) -> None:
    """Open a shard."""
    write_bytes(partition.shard(manifest.shard), dump(manifest))


def parse_manifest(shard: str, text: bytes) -> ShardManifest:
    """The manifest that is stored under a shard's name.

    Raises:
        ValueError: it is damaged, or names what no manifest names.
    """
    manifest = load(ShardManifest, text)
    if manifest.shard != shard:
        raise ValueError("is the manifest of another shard")
    names = {name.casefold() for fields in (manifest.fields, *(v.fields for v in manifest.videos)) for name in fields}
    if names & {column.name.casefold() for table in PER_VIDEO_TABLES for column in ALL_TABLES[table]}:
        raise ValueError("has a path field that is called like a table's column")
    return manifest


def read_manifests(partition: Partition, damaged: list[str] | None = None) -> list[ShardManifest]:
    """All open shards; `damaged` as for `stored_commits`.

    Raises:
        OutputError: one cannot be read, and `damaged` is None.
    """
    folder, found = partition.shard(), []
    for path, text in read_listed(folder, list_versions(folder, suffix=".json")).items():
        file = path.rsplit("/", 1)[-1]
        try:
            if isinstance(text, Exception):
                with storage_errors(f"{folder.uri}/{file}"):
                    raise text
            found.append(parse_manifest(file.removesuffix(".json"), text))
        except OutputError as error:
            problem = str(error)
        except ValueError:
            problem = on_one_line(f"{folder.uri}/{file}: {_DAMAGED_MANIFEST}")
        else:
            continue
        if damaged is None:
            raise OutputError(problem)
        damaged.append(problem)
    return found


_DAMAGED_MANIFEST = "damaged record of an open shard; delete it, and the next run plans its videos again"


def close_shard(partition: Partition, shard: str) -> None:
    """Forget an open shard."""
    delete(partition.shard(shard))
