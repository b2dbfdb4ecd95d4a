"""Upkeep. Who is who: the table `persons` of a release, made anew from its embeddings and published in one commit.

The commit's name follows from the embeddings and the settings, so that the same work is not done twice. It replaces the
commit before it in one PUT, as a compaction does: a kill leaves the old persons or the new ones.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from featray.errors import OutputError, counted, printable
from featray.persons.cluster import Fit, cluster, fit
from featray.persons.naming import Key, name_persons
from featray.persons.settings import PersonsSettings
from featray.persons.templates import EMBEDDING_COLUMNS, FACE_COLUMNS, Templates
from featray.schema import arrow_schema
from featray.store.scratch import scratch_folder
from featray.tables.commits import Commit, CommittedFile, read_commits, write_commit
from featray.tables.layout import Partition
from featray.tables.lease import HeldPartition, hold
from featray.tables.replace import PERSONS_PREFIX, carry_out
from featray.tables.rewrite import footer_of, merged_footer, open_parquet
from featray.tables.writer import TableWriter
from featray.upkeep.finish import finish_committed, remove_leftovers

DOUBTFUL = 0.01
"""Of the margin: below it, another person's centre is nearly as close as the own one."""


@dataclass(frozen=True)
class Persons:
    """Who is who in a release.

    Attributes:
        clustering: under which settings.
        fresh: whether it was made now; else it was there, and the rest is what stands in it.
        threshold: cosine from which on two centres were one person.
        without_embedding: tracks that have no person, since none of their faces was embedded; -1 if not counted.
        largest: persons with the most tracks, and how many.
        doubtful: tracks with a margin below `DOUBTFUL`.
        renamed: tracks that had another person before: persons were joined or parted.
        histogram: tracks by similarity to their person's centre, in steps of 0.01, by the lower end.
    """

    clustering: str
    fresh: bool
    threshold: float
    tracks: int
    persons: int
    without_embedding: int = -1
    doubtful: int = 0
    renamed: int = 0
    largest: list[tuple[str, int]] = field(default_factory=list)
    histogram: dict[str, int] = field(default_factory=dict)


def find_persons(partition: Partition, settings: PersonsSettings) -> Persons | None:
    """Make the table `persons` of a release; None where it has no embeddings.

    Raises:
        LeaseError: a run is on.
        OutputError: embeddings of several embedders, or a damaged file.
    """
    with hold(partition, f"{PERSONS_PREFIX}{secrets.token_hex(4)}") as lease:
        held = lease.partition
        finish_committed(held)
        remove_leftovers(held)
        commits = read_commits(held)
        embedded = _files(commits, "embeddings")
        old = [commit for commit in commits if any(file.table == "persons" for file in commit.files)]
        if not embedded:
            return None
        name = _commit_name(settings, [*embedded, *_files(commits, "faces")])
        embedder, footer = _embedder(held, embedded)
        threshold = settings.threshold_of(embedder)
        before = _read(held, old)
        if [commit.name for commit in old] == [name]:
            return _told(settings, threshold, before, fresh=False)
        templates = _templates(held, commits)
        keys, tracks = templates.tracks()
        person = cluster(tracks, threshold)
        had = {(row["video_id"], row["track_id"]): row["person_id"] for row in before}
        rows = _rows(keys, name_persons(keys, person.tolist(), had), fit(tracks, person), had)
        newest_us = max(commit.published_at_us for commit in commits)
        files = _write(held, name, settings, rows, {**footer, "threshold": f"{threshold:g}"})
        _replace(held, old, Commit(name, "", newest_us, files))
        return replace(_told(settings, threshold, rows, fresh=True), without_embedding=templates.without)


def _files(commits: list[Commit], table: str) -> list[CommittedFile]:
    return [file for commit in commits for file in commit.files if file.table == table]


def _commit_name(settings: PersonsSettings, files: list[CommittedFile]) -> str:
    text = "\n".join([settings.clustering, *sorted(file.sha256 for file in files)])
    return f"{PERSONS_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _embedder(partition: HeldPartition, files: list[CommittedFile]) -> tuple[str, dict[str, str]]:
    """The embedder of all files, and what their footers say."""
    names: set[str] = set()
    footers = []
    for file in files:
        with open_parquet(partition.output.root.child(file.path)) as opened:
            footers.append(footer_of(opened))
            names |= set(_typed(opened.read(columns=["embedder"]), "embeddings", ["embedder"])["embedder"].to_pylist())
    if len(names) != 1:
        shown = ", ".join(map(printable, sorted(names)))
        raise OutputError(f"{partition.release}: its embeddings are of {counted(len(names), 'embedder')}: {shown}")
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
    """These columns, in the types of the table's schema.

    Raises:
        pa.ArrowException: a value does not fit its type.
        KeyError: a column is missing.
        ValueError: a value is null that names a track, or is needed for it.
    """
    schema = arrow_schema(table)
    typed = rows.select(list(columns)).cast(pa.schema([schema.field(name) for name in columns]))
    for name in columns:
        if name not in _MAY_BE_NULL and typed[name].null_count:
            raise ValueError(f"{name} is null")
    return typed


_MAY_BE_NULL = ("margin", "previous")


def _read(partition: Partition, commits: list[Commit]) -> list[dict[str, Any]]:
    """The rows of `persons` in these commits."""
    rows: list[dict[str, Any]] = []
    for file in _files(commits, "persons"):
        with open_parquet(partition.output.root.child(file.path)) as opened:
            rows += _typed(opened.read(columns=list(_PERSON_COLUMNS)), "persons", _PERSON_COLUMNS).to_pylist()
    return rows


_PERSON_COLUMNS = ("video_id", "track_id", "person_id", "similarity", "margin", "previous")


def _rows(keys: list[Key], names: list[str], found: Fit, had: dict[Key, str]) -> list[dict[str, Any]]:
    values = zip(keys, names, found.similarity.tolist(), found.margin.tolist(), strict=True)
    return [
        {
            "video_id": key[0],
            "track_id": key[1],
            "person_id": name,
            "similarity": similarity,
            "margin": None if np.isnan(margin) else margin,
            "previous": had[key] if had.get(key, name) != name else None,
        }
        for key, name, similarity, margin in values
    ]


def _write(
    partition: HeldPartition, name: str, settings: PersonsSettings, rows: list[dict[str, Any]], footer: dict[str, str]
) -> list[CommittedFile]:
    constants = {"dataset": partition.dataset, "release": partition.release, "clustering": settings.clustering}
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
            writer.write_rows([{**constants, **row} for row in rows])
            return writer.close()
        finally:
            writer.abandon()


def _replace(partition: HeldPartition, old: list[Commit], new: Commit) -> None:
    """Put a commit in the place of others, in one write."""
    gone = [replace(one, files=[], videos=[], rewrites=[]) for one in old if one.name != new.name]
    commit = replace(new, rewrites=gone)
    write_commit(partition, commit)
    carry_out(partition, commit)


def _told(settings: PersonsSettings, threshold: float, rows: list[dict[str, Any]], *, fresh: bool) -> Persons:
    sizes = Counter(row["person_id"] for row in rows)
    steps = Counter(f"{np.floor(row['similarity'] * 100) / 100:.2f}" for row in rows)
    return Persons(
        settings.clustering,
        fresh,
        threshold,
        len(rows),
        len(sizes),
        doubtful=sum(row["margin"] is not None and row["margin"] < DOUBTFUL for row in rows),
        renamed=sum(row["previous"] is not None for row in rows),
        largest=sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:10],
        histogram=dict(sorted(steps.items())),
    )


def read_persons(partition: Partition) -> dict[Key, str]:
    """Return the `person_id` of each track that has one."""
    old = [commit for commit in read_commits(partition) if any(file.table == "persons" for file in commit.files)]
    return {(row["video_id"], row["track_id"]): row["person_id"] for row in _read(partition, old)}


def tracks_of(partition: Partition, person_id: str) -> list[Key]:
    """Return the tracks of a person, in order."""
    return sorted(key for key, name in read_persons(partition).items() if name == person_id)
