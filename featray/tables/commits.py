"""Tables. Commit records: what is published, file by file and video by video.

A commit is one small object, written last and atomically. A file that no commit names is not
published, even if it is in a table's folder.

Commits and manifests are untrusted. Only `parse_commit` and `parse_manifest` read them; they reject invalid names, and
so every path that leads out of the output.
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
from featray.store.failures import storage_errors
from featray.store.storage import Version, delete, list_versions, read_listed, read_record, write_bytes
from featray.tables.layout import Partition, check_there
from featray.tables.lease import HeldPartition

_FETCHED_TOGETHER = 32
"""Number of commits to fetch at once; commits of full shards have about 250 kB each."""


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
    """One published video, with its counts.

    Attributes:
        extra_digest: `records.digest_of_extra` of its `videos.extra`; empty in commits of older versions too.
    """

    video_id: VideoId
    uri: str
    work_key: WorkKey
    status: Annotated[str, Field(pattern="^(ok|partial|failed)$")]
    frames: Count
    faces: Count
    extra_digest: Digest | Literal[""] = ""


@dataclass(frozen=True)
class Commit:
    """The record that publishes one shard, or one run's row in `runs`.

    Attributes:
        run_id: the run that wrote it; empty for an erasure.
        published_at_us: 0 for a cancelled shard, which is empty and only prevents its name from being committed.
        rewrites: new versions of older commits, valid as soon as this commit is written; see `replace.py`.
        several_streams: number of videos with further video streams, when the commit was first written.
        derived: derivations among its files, and when each was made, microseconds since the epoch, UTC; empty in
            commits of older versions.
        derived_from: for derivations that need videos of other shards, the state of those videos when the rows were
            made: a digest of the videos, by a digest of their owner. If one differs now, the rows are stale.
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
        """Return whether the shard was cancelled before it was published."""
        return not self.published_at_us


def create_commit(partition: Partition, commit: Commit) -> Commit:
    """Publish a shard, once: from now on the commit's files count. Return the commit that exists afterwards.

    An existing commit of that name is kept: another try of the same task was faster, or a run
    that took over has cancelled the shard.
    """
    while not create_bytes(partition.commit(commit.name), dump(commit)):
        there = read_commit(partition, commit.name)
        if there is not None:
            return there
    return commit


def cancel_shard(partition: Partition, shard: str, run_id: str) -> Commit:
    """Cancel an open shard of a run that is gone; return the commit that exists afterwards.

    If that commit is not `cancelled`, the shard had been published.
    """
    return create_commit(partition, Commit(shard, run_id, 0, []))


def write_commit(partition: HeldPartition, commit: Commit) -> None:
    """Write a commit, replacing an older one of its name; check first that the run still holds the lease."""
    partition.check()
    write_bytes(partition.commit(commit.name), dump(commit))


def parse_commit(partition: Partition, name: str, text: bytes) -> Commit:
    """Parse the commit stored under a name.

    Raises:
        ValueError: it is damaged or contains an invalid name, or names a file of another dataset or release, which
            changes of this one would delete.
    """
    commit = load(Commit, text)
    if commit.name != name:
        raise ValueError("is a commit of another name")
    for file in (file for one in (commit, *commit.rewrites) for file in one.files):
        if file.table not in ALL_TABLES or not partition.has_file(file.table, file.path):
            raise ValueError("names a file that belongs to no table of its dataset and release")
    for one in (commit, *commit.rewrites):
        if len({file.path for file in one.files}) < len(one.files):
            raise ValueError("names a file twice")
    return commit


class FileNames:
    """Collects the files of commits, and finds one that two of them name: changes of one delete the other's rows."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._files: dict[str, list[str]] = {}

    def add(self, commit: Commit) -> None:
        """Add a commit, without its rewrites; it replaces one of its name."""
        self._files[commit.name] = [file.path for file in commit.files]

    def distinct(self) -> set[str]:
        """Return the paths.

        Raises:
            OutputError: two commits name one file.
        """
        found: dict[str, str] = {}
        for name, path in ((name, path) for name, paths in self._files.items() for path in paths):
            if (other := found.setdefault(path, name)) != name:
                raise OutputError(
                    f"{self._partition.commit().uri}: commits {other} and {name} both name {path}, so a change of one "
                    "would delete rows of the other; delete the commit that is a copy"
                )
        return set(found)


def read_commit(partition: Partition, name: str) -> Commit | None:
    """Read one commit; None if there is no commit of that name.

    Raises:
        OutputError: it is damaged.
    """
    place = partition.commit(name)
    try:
        return parse_commit(partition, name, read_record(place))
    except NotFound:
        return None
    except ValueError:
        raise OutputError(f"{place.uri}: {_DAMAGED_COMMIT}") from None


def read_commits(partition: Partition) -> list[Commit]:
    """Return all commits of a partition, with pending rewrites applied."""
    commits = {commit.name: commit for commit in stored_commits(partition)}
    pending = [rewritten for commit in commits.values() for rewritten in commit.rewrites]
    commits |= {rewritten.name: rewritten for rewritten in pending}
    return list(commits.values())


def stored_commits(partition: Partition, damaged: list[str] | None = None) -> Iterator[Commit]:
    """Yield commits as stored, in the order of their names; fetch a few at a time.

    Args:
        partition: the partition.
        damaged: receives a line for each unreadable record, which is then skipped.

    Raises:
        OutputError: a record cannot be read, and `damaged` is None.
    """
    for _, commit in commits_at(partition, list_commits(partition)):
        if isinstance(commit, Commit):
            yield commit
        elif commit is not None and damaged is None:
            raise OutputError(commit)
        elif commit is not None and damaged is not None:
            damaged.append(commit)


def list_commits(partition: Partition) -> dict[str, Version]:
    """Return the versions of a partition's commits by path.

    Raises:
        OutputError: the output was deleted after it was opened.
        StorageError: they cannot be listed.
    """
    found = list_versions(partition.commit(), suffix=".json")
    if not found:
        check_there(partition.output)
    return found


def commits_at(
    partition: Partition, listed: dict[str, Version], *, may_be_gone: bool = False
) -> Iterator[tuple[str, Commit | str | None]]:
    """Read the commits at paths from a listing.

    Args:
        partition: the partition.
        listed: the answer of `list_commits`; a few are fetched at a time.
        may_be_gone: whether to accept commits that were deleted after the listing.

    Yields:
        Path and commit; a text instead of a damaged commit; None instead of a deleted one.

    Raises:
        StorageError: a commit cannot be read.
    """
    paths = list(listed)
    for start in range(0, len(paths), _FETCHED_TOGETHER):
        page = {path: listed[path] for path in paths[start : start + _FETCHED_TOGETHER]}
        for path, text in read_listed(partition.commit(), page).items():
            if isinstance(text, FileNotFoundError) and may_be_gone:
                yield path, None
            else:
                yield path, _commit_or_problem(partition, path.rsplit("/", 1)[-1], text)


def _commit_or_problem(partition: Partition, file: str, text: bytes | Exception) -> Commit | str:
    folder = partition.commit().uri
    if isinstance(text, OutputError):
        return str(text)
    if isinstance(text, Exception):
        with storage_errors(f"{folder}/{file}"):
            raise text
    try:
        return parse_commit(partition, file.removesuffix(".json"), text)
    except ValueError:
        return on_one_line(f"{folder}/{file}: {_DAMAGED_COMMIT}")


_DAMAGED_COMMIT = (
    "damaged commit record, so its files and videos are unknown; restore a copy of it, or delete it and run again to "
    "process its videos again"
)


@dataclass(frozen=True)
class ManifestVideo:
    """One video of an open shard, with what publishing needs; names are those of the table `videos`.

    Attributes:
        extra: the other columns of the manifest that named it, as JSON.
        replaces: the published shard that has older rows of it, if there is one.
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
    """The videos of an open shard; written before their work starts, deleted after the commit.

    Attributes:
        fields: the path-field values that all its videos share, and so one partition folder; null if the paths did
            not fit the pattern.
    """

    shard: RecordName
    run_id: RecordName
    fields: dict[FieldName, str | None]
    videos: list[ManifestVideo]


def write_manifest(partition: Partition, manifest: ShardManifest) -> None:
    """Open a shard."""
    write_bytes(partition.shard(manifest.shard), dump(manifest))


def parse_manifest(shard: str, text: bytes) -> ShardManifest:
    """Parse the manifest stored under a shard's name.

    Raises:
        ValueError: it is damaged or contains an invalid name.
    """
    manifest = load(ShardManifest, text)
    if manifest.shard != shard:
        raise ValueError("is the manifest of another shard")
    names = {name.casefold() for fields in (manifest.fields, *(v.fields for v in manifest.videos)) for name in fields}
    if names & {column.name.casefold() for table in PER_VIDEO_TABLES for column in ALL_TABLES[table]}:
        raise ValueError("has a path field that is called like a table's column")
    return manifest


def read_manifests(partition: Partition, damaged: list[str] | None = None) -> list[ShardManifest]:
    """Return all open shards; `damaged` as for `stored_commits`.

    Raises:
        OutputError: a manifest cannot be read, and `damaged` is None.
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


_DAMAGED_MANIFEST = "damaged manifest of an open shard; delete it, and the next run plans its videos again"


def close_shard(partition: Partition, shard: str) -> None:
    """Delete the manifest of an open shard."""
    delete(partition.shard(shard))
