"""Upkeep. Build the table `persons` of a release from its embeddings and publish it in one commit.

The commit's name is derived from the embeddings, the settings, the edits and the gallery, so the same work is not
repeated. It replaces the previous commit in one PUT, as a compaction does: a kill leaves the old or the new one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from featray.errors import OutputError, counted, printable
from featray.persons.cluster import Tracks, centres_of, cluster, fit
from featray.persons.edits import apply_edits
from featray.persons.gallery import Gallery, recognise
from featray.persons.keys import TrackKeys
from featray.persons.rows import Before, Persons, person_rows, told
from featray.persons.settings import PersonsSettings
from featray.persons.templates import EMBEDDING_COLUMNS, FACE_COLUMNS, Templates
from featray.schema import arrow_schema
from featray.store.scratch import scratch_folder
from featray.tables.commits import Commit, CommittedFile, read_commits, write_commit
from featray.tables.database import literal
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition, hold
from featray.tables.person_edits import PersonEdit, finish_undo, read_edits
from featray.tables.persons import TrackKey
from featray.tables.query import connect, run_sql
from featray.tables.replace import PERSONS_PREFIX, carry_out
from featray.tables.rewrite import footer_of, merged_footer, open_parquet
from featray.tables.writer import TableWriter
from featray.upkeep.finish import finish_committed, remove_leftovers

OpenGallery = Callable[[str], Gallery]
"""Function that returns the named faces, embedded by the embedder of this name."""


def find_persons(
    partition: Partition, settings: PersonsSettings, open_gallery: OpenGallery | None = None
) -> Persons | None:
    """Build the table `persons` of a release; return None if it has no embeddings.

    Args:
        partition: release to cluster.
        settings: settings of the clustering.
        open_gallery: returns the gallery that names persons; None to keep the current names.

    Raises:
        LeaseError: a run is active.
        OutputError: there are embeddings of several embedders, or a file or record is damaged.
        UsageError: there are too many tracks to compare without an index, which is not installed; or the gallery is
            invalid.
    """
    with hold(partition, f"{PERSONS_PREFIX}{secrets.token_hex(4)}") as lease:
        held = lease.partition
        finish_committed(held)
        remove_leftovers(held)
        found = _find(held, settings, open_gallery)
        finish_undo(held)
        return found


def _find(held: HeldPartition, settings: PersonsSettings, open_gallery: OpenGallery | None) -> Persons | None:
    commits, edits = read_commits(held), read_edits(held)
    embedded, old = _files(commits, "embeddings"), _of_persons(commits)
    if not embedded:
        return None
    embedder, footer = _embedder(held, embedded)
    threshold = settings.threshold_of(embedder)
    gallery = None if open_gallery is None else open_gallery(embedder)
    before, named_by = _read(held, old)
    named_by = named_by if gallery is None else gallery.digest
    sources = [*embedded, *_files(commits, "faces")]
    name = commit_name(settings.clustering, edits, named_by, sources)
    if [commit.name for commit in old] == [name]:
        there = told(settings.clustering, threshold, before, None)
        return replace(there, edits=len(edits), gallery=[] if gallery is None else gallery.problems)
    keys, tracks, without = _templates(held, commits).tracks()
    made = _make(keys, tracks, threshold, edits, before, gallery)
    if gallery is None and made.of_gallery:  # names are lost, so the same gallery is to be looked at again
        named_by = ""
        name = commit_name(settings.clustering, edits, named_by, sources)
    newest_us = max(commit.published_at_us for commit in commits)
    footer = {**footer, "threshold": f"{threshold:g}", "gallery": named_by}
    _replace(held, old, Commit(name, "", newest_us, _write(held, name, settings, made.rows, footer)))
    done = told(settings.clustering, threshold, made.rows, made.before)
    return replace(done, without_embedding=without, edits=len(edits), refused=made.refused, gallery=made.of_gallery)


@dataclass(frozen=True)
class _Made:
    """Rows of `persons`, their previous content, the edits not applied, and notes about the gallery, one line each."""

    rows: pa.Table
    before: Before
    refused: list[str]
    of_gallery: list[str]


def _make(
    keys: TrackKeys,
    tracks: Tracks,
    threshold: float,
    edits: list[PersonEdit],
    before: pa.Table,
    gallery: Gallery | None,
) -> _Made:
    person, split_off, refused = apply_edits(cluster(tracks, threshold), edits, keys, tracks)
    index = np.unique(person, return_inverse=True)[1]
    stood = Before.of(before, keys)
    ids = stood.name(keys, index, split_off)
    names, lines = stood.carried(ids, index), list[str]()
    if gallery is None:
        lost = sorted(set(stood.names.values()) - set(names.values()))
        lines = [f"{name}: nobody has this name any more; give --gallery to name persons again" for name in lost]
    else:
        found = recognise(centres_of(tracks, index), gallery, threshold)
        names, lines = {ids[one]: name for one, name in found.name_of.items()}, list(gallery.problems)
        for one, name, others in found.several:
            lines.append(f"{ids[one]} is near {counted(1 + len(others), 'name')}, nearest first: {name}, ")
            lines[-1] += ", ".join(others)
        for name, nearest in found.nobody:
            similarity = "" if nearest is None else f"; the nearest has similarity {nearest:.3f}"
            lines.append(f"{name}: no person is near enough{similarity} (threshold {threshold:g})")
    rows = person_rows(keys, ids, index, fit(tracks, person), stood, names)
    return _Made(rows, stood, [_refusal(edit) for edit in refused], lines)


def _refusal(edit: PersonEdit) -> str:
    tracks = ", ".join(f"{one.video_id}:{one.track_id}" for one in edit.tracks[:5])
    if edit.kind == "merge":
        return (
            f"merge of the persons of {tracks}: not applied; they are on screen together, or a track no longer exists"
        )
    return f"split of {tracks}: not applied; the tracks, or the person that they leave, no longer exist"


def _files(commits: list[Commit], table: str) -> list[CommittedFile]:
    return [file for commit in commits for file in commit.files if file.table == table]


def _of_persons(commits: list[Commit]) -> list[Commit]:
    return [commit for commit in commits if _files([commit], "persons")]


def commit_name(clustering: str, edits: list[PersonEdit], gallery: str, files: list[CommittedFile]) -> str:
    """Return the name of the commit of `persons` that is made from these files of `embeddings` and `faces`.

    Args:
        clustering: name of the settings.
        edits: the edits that it applies.
        gallery: digest of the gallery that named its persons; empty if there is none.
        files: all files of both tables.
    """
    text = "\n".join([clustering, *map(repr, edits), gallery, *sorted(file.sha256 for file in files)])
    return f"{PERSONS_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _embedder(partition: HeldPartition, files: list[CommittedFile]) -> tuple[str, dict[str, str]]:
    """Return the embedder of all files, and the metadata in their footers."""
    names: set[str] = set()
    footers = []
    for file in files:
        with open_parquet(partition.output.root.child(file.path)) as opened:
            footers.append(footer_of(opened))
            for group in range(opened.num_row_groups):
                rows = _typed(opened.read_row_group(group, columns=["embedder"]), "embeddings", ["embedder"])
                names |= set(rows["embedder"].unique().to_pylist())
    if len(names) != 1:
        shown = ", ".join(map(printable, sorted(names)))
        raise OutputError(f"{partition.release}: its embeddings are from {counted(len(names), 'embedder')}: {shown}")
    return names.pop(), merged_footer(footers)


def _templates(partition: HeldPartition, commits: list[Commit]) -> Templates:
    templates = Templates()
    for table, columns, add in (
        ("embeddings", EMBEDDING_COLUMNS, templates.add_embeddings),
        ("faces", FACE_COLUMNS, templates.add_faces),
    ):
        for file in _files(commits, table):
            with open_parquet(partition.output.root.child(file.path)) as opened:
                for group in range(opened.num_row_groups):
                    add(_typed(opened.read_row_group(group, columns=list(columns)), table, columns))
    return templates


def _typed(rows: pa.Table, table: str, columns: Sequence[str]) -> pa.Table:
    """Return these columns, cast to the types of the table's schema.

    Raises:
        pa.ArrowException: a value does not fit its type, or a text is not UTF-8.
        KeyError: a column is missing.
        ValueError: a required value is null.
    """
    schema = arrow_schema(table)
    typed = rows.select(list(columns)).cast(pa.schema([schema.field(name) for name in columns]))
    typed.validate(full=True)
    for name in columns:
        if name not in _MAY_BE_NULL and typed[name].null_count:
            raise ValueError(f"{name} is null")
    return typed


_MAY_BE_NULL: Final = ("margin", "previous", "name")

_PERSON_COLUMNS: Final = ("video_id", "track_id", "person_id", "similarity", "margin", "previous", "name")


def _read(partition: Partition, commits: list[Commit]) -> tuple[pa.Table, str]:
    """Return the rows of `persons` in these commits, and the digest of the gallery that named them."""
    schema = arrow_schema("persons")
    rows, gallery = [pa.schema([schema.field(name) for name in _PERSON_COLUMNS]).empty_table()], ""
    for file in _files(commits, "persons"):
        with open_parquet(partition.output.root.child(file.path)) as opened:
            rows.append(_typed(opened.read(columns=list(_PERSON_COLUMNS)), "persons", _PERSON_COLUMNS))
            gallery = footer_of(opened).get("gallery", "")
    return pa.concat_tables(rows), gallery


def _write(
    partition: HeldPartition, name: str, settings: PersonsSettings, rows: pa.Table, footer: dict[str, str]
) -> list[CommittedFile]:
    constants = {"dataset": partition.dataset, "release": partition.release, "clustering": settings.clustering}
    for column, value in constants.items():
        rows = rows.append_column(column, pa.repeat(pa.scalar(value, pa.string()), rows.num_rows))
    with scratch_folder("persons") as scratch:
        writer = TableWriter(
            "persons",
            partition,
            folder=partition.folder("persons", {"clustering": settings.clustering}),
            stem=f"part-{name}",
            scratch=scratch,
            footer=footer,
            path_fields=(),
        )
        try:
            writer.write(rows)
            return writer.close()
        finally:
            writer.abandon()


def _replace(partition: HeldPartition, old: list[Commit], new: Commit) -> None:
    """Replace commits by another, in one write."""
    gone = [replace(one, files=[], videos=[], rewrites=[]) for one in old if one.name != new.name]
    commit = replace(new, rewrites=gone)
    write_commit(partition, commit)
    carry_out(partition, commit)


def read_rows(partition: Partition) -> pa.Table:
    """Return the rows of `persons`, without the columns that are constant in a release."""
    return _read(partition, _of_persons(read_commits(partition)))[0]


def tracks_among(partition: Partition, keys: Collection[TrackKey]) -> set[TrackKey]:
    """Return those of the keys that are tracks of the release."""
    if not keys:
        return set()
    videos = ", ".join(sorted({literal(video_id) for video_id, _ in keys}))
    where = f"dataset = {literal(partition.dataset)} AND video_id IN ({videos})"
    with connect(partition.output, partition.release, ("faces",)) as connection:
        rows = run_sql(connection, f"SELECT DISTINCT video_id, track_id FROM faces WHERE {where}").read_all()
    return set(zip(rows["video_id"].to_pylist(), rows["track_id"].to_pylist(), strict=True)) & set(keys)


def read_persons(partition: Partition) -> dict[TrackKey, str]:
    """Return the `person_id` of each track that has one."""
    rows = read_rows(partition)
    keys = zip(rows["video_id"].to_pylist(), rows["track_id"].to_pylist(), strict=True)
    return dict(zip(keys, rows["person_id"].to_pylist(), strict=True))
