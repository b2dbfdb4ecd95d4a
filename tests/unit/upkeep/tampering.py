"""Doing to an output what must be found out: files changed, with their commit or behind its back."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from featray.tables.commits import read_commits, write_commit


def commit_of(partition, table):
    """The commit with the most rows of a table."""
    rows = {c.name: sum(f.rows for f in c.files if f.table == table) for c in read_commits(partition)}
    best = max(rows, key=rows.get)
    return next(c for c in read_commits(partition) if c.name == best)


def file_of(partition, table):
    """The committed file of a table with the most rows."""
    files = [f for commit in read_commits(partition) for f in commit.files if f.table == table]
    return max(files, key=lambda file: file.rows)


def path_of(partition, file) -> Path:
    return Path(partition.output.root.child(file.path).path)


def tamper(partition, table, edit, *, signed):
    """Write a file anew after `edit(rows as pylist)`; `signed` edits the commit to match. The file's relative path."""
    file = file_of(partition, table)
    path = path_of(partition, file)
    old = pq.read_table(path)
    rows = edit(old.to_pylist())
    pq.write_table(type(old).from_pylist(rows, schema=old.schema), path, compression="zstd")
    if signed:
        sign(partition, file, rows=len(rows))
    return file.path


def sign(partition, file, rows=None):
    """Edit the commit so that it says what the file now is."""
    data = path_of(partition, file).read_bytes()
    now = replace(
        file, rows=file.rows if rows is None else rows, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    for commit in read_commits(partition):
        if file in commit.files:
            write_commit(partition, replace(commit, files=[now if f == file else f for f in commit.files]))
