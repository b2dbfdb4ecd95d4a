"""Tables. Find a video by the names that people use: its id, its URI, or the last parts of its URI."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Final

import duckdb

from featray.errors import FeatrayError, OutputError, UsageError, counted, printable, shown
from featray.identity import video_id
from featray.sources.manifests import MAX_URI_CHARS
from featray.store.location import locate
from featray.tables.database import literal, read_rows
from featray.tables.layout import Output
from featray.tables.provenance import read_config
from featray.tables.published import Published, read_steadily, sound
from featray.tables.query import connect, run_sql
from featray.tables.tombstones import erased_videos, read_erasures

PLACE: Final = "coalesce(uri || '#' || member, uri)"
"""SQL for the place of a video: its URI, with the name of its member if it is in a shard file."""


_BARE: Final = f"regexp_replace({PLACE}, '(\\.[^./#]*|/)$', '')"
"""SQL for the place of a video without its suffix, or of a folder of pictures without its last slash."""


def is_named(name: str) -> str:
    """Return the SQL condition on `videos` for a video with this id, this URI, or a URI with this end (`face.mp4`).

    If there is none, it holds for videos whose URI has this end without its suffix (`face`) or its last slash.
    """
    whole = f"video_id = {literal(name)} OR uri = {literal(name)} OR {_ends(PLACE, name)}"
    return f"({whole} OR ({_ends(_BARE, name)} AND NOT EXISTS (SELECT 1 FROM videos WHERE {whole})))"


def _ends(place: str, name: str) -> str:
    if not name:
        return "false"
    ends = (f"ends_with({place}, {literal(separator + name)})" for separator in "/#")
    return f"({place} = {literal(name)} OR {' OR '.join(ends)})"


class NotNamed(UsageError):
    """No published video has this name."""


def not_named(connection: duckdb.DuckDBPyConnection, name: str) -> NotNamed:
    """Return the error for a name that no video has, with the name of one that exists."""
    sql = f"SELECT {PLACE} AS place FROM videos WHERE uri IS NOT NULL ORDER BY ALL LIMIT 1"
    places = [row["place"] for row in read_rows(run_sql(connection, sql))]
    example = [f", such as {printable(place.rstrip('/').rpartition('/')[2])}" for place in places]
    return NotNamed(
        f"--video {_shown(name)}: not in this output; give a video_id, a URI, or the last parts of one"
        f"{''.join(example)}; "
        'list them with `featray query OUT "SELECT video_id, uri FROM videos"`'
    )


def _shown(name: str) -> str:
    return shown(name, 500)  # more than URIs have


def several_named(name: str, found: Mapping[str, str | None]) -> UsageError:
    """Return the error for a name that several videos have; `found` has their places by id."""
    places = ", ".join(f"{printable(place or '?')} ({one})" for one, place in sorted(found.items())[:5])
    return UsageError(
        f"{_shown(name)}: matches {counted(len(found), 'video')}: {places}; give more of the path of one, or its id"
    )


def short_place(place: str) -> str:
    """Return the last two parts of a URI or path: clips of a study are often named alike in a folder per person.

    >>> short_place("file:///data/P01/stress.mp4")
    'P01/stress.mp4'
    """
    return "/".join(place.rstrip("/").rsplit("/", 2)[-2:])


def find_video_id(output: Output, name: str, *, certain: bool = False) -> str:
    """Return the id of the one video that a name refers to, in any release.

    An id is returned unchanged. The URI or absolute path of an unpublished video is converted to its id, because such a
    video may have landed or be partly erased.

    Args:
        output: the output.
        name: id, URI, or last parts of a URI.
        certain: whether to check that the id was made from the URI that has the name: else a row that somebody changed
            could name another video.

    Raises:
        UsageError: no video has this name, or several do.
        OutputError: the id of a video with this name is of another URI.
    """
    if re.fullmatch("[0-9a-f]{16}", name):
        return name
    sql = f"SELECT DISTINCT video_id, {PLACE} AS place FROM videos WHERE {is_named(name)} AND video_id IS NOT NULL"

    is_place = "://" in name or name.startswith("/")

    def read(published: list[Published]) -> dict[str, str]:
        connection = connect(output, tables=("videos",), published=sound(published))
        found = {row["video_id"]: row["place"] for row in read_rows(run_sql(connection, sql))}
        if not found and not is_place:
            raise not_named(connection, name)
        for one, place in found.items() if certain else ():
            if place is not None and video_id(place) != one:
                text = f"{printable(place)}: its row in `videos` has the id {one}, which is of another video"
                raise OutputError(f"{text}; run `featray verify OUT`, and name the video by its id")
        return found

    found = read_steadily(output, read, "all")
    if len(found) > 1:
        raise several_named(name, found)
    if found:
        return str(next(iter(found)))
    uri, _, member = name.partition("#")
    return video_id(locate(uri, {}).uri, member or None)


def find_erased_id(output: Output, name: str) -> str:
    """Return the id of the one erased video that a name refers to.

    No URI of an erased video is stored. If the end of one is given, it is looked for in the working folder, in the
    folders of published videos, and in the input folders of runs.

    Raises:
        UsageError: neither an erased nor a published video has this name, or several have.
    """
    erased = set(erased_videos(output))
    if not erased or re.fullmatch("[0-9a-f]{16}", name) or "://" in name or name.startswith("/"):
        return find_video_id(output, name)

    found = _erased_with_name(output, erased, name)
    if len(found) == 1:
        return found.pop()
    try:
        return find_video_id(output, name)
    except UsageError:
        some = ", ".join(sorted(found or erased)[:5])
        why = "matches several erased videos" if found else "no erased video with this name was found"
        raise UsageError(f"--video {_shown(name)}: {why}; give its whole URI or its id, one of {some}") from None


def find_id_to_erase(output: Output, name: str) -> str:
    """Return the id of the one video that a name refers to; an erased one if no published video has the name.

    So the same command finishes an interrupted erasure, whose rows and URI are already gone.

    Raises:
        UsageError: no video has this name, or several do.
        OutputError: the id of the video with this name is of another URI.
    """
    try:
        return find_video_id(output, name, certain=True)
    except NotNamed as error:
        erased = set(erased_videos(output))
        if len(found := _erased_with_name(output, erased, name)) == 1:
            return found.pop()
        text = f"{error}; what a run has not published yet is found only by the whole URI or the id"
        unfinished = [one for one in sorted(erased) if not all(e.done for e in read_erasures(output, one))]
        if not unfinished:
            raise NotNamed(text) from None
        finish = f"if it is {' or '.join(unfinished[:5])}, whose erasure was interrupted, give that id to finish it"
        raise UsageError(f"{text}; {finish}") from None


def _erased_with_name(output: Output, erased: set[str], name: str) -> set[str]:
    """Return the ids of the erased videos that the end of a URI may refer to."""
    if not erased:
        return set()
    uri, _, member = name.partition("#")
    shards, folders = read_steadily(output, lambda published: _known_places(output, published), "all")
    places = chain(
        [(locate(uri, {}).uri, member or None)],
        ((shard, name) for shard in shards),
        ((f"{folder}/{uri}", member or None) for folder in folders for folder in _with_parents(folder)),
    )
    return erased & {video_id(*place) for place in places}


def _with_parents(folder: str) -> Iterator[str]:
    """Yield a folder and those above it, but not of texts of any length: time grows as the square of it."""
    while folder and not folder.endswith(("/", ":")) and len(folder) <= MAX_URI_CHARS:
        yield folder
        folder = folder.rpartition("/")[0]


def _known_places(output: Output, published: list[Published]) -> tuple[set[str], set[str]]:
    """Return the URIs of shard files, and those of folders with videos or named as input by runs."""
    connection = connect(output, tables=("videos", "runs"), published=sound(published))
    videos = read_rows(run_sql(connection, "SELECT DISTINCT uri, member FROM videos WHERE uri IS NOT NULL"))
    folders = {row["uri"].rpartition("/")[0] for row in videos}
    for row in read_rows(run_sql(connection, "SELECT DISTINCT config FROM runs")):
        with suppress(ValueError, FeatrayError):
            for uri in read_config(row["config"]).uris:
                folder = re.split(r"[*?[{]", uri)[0].rpartition("/")[0]
                folders.add(folder if "://" in folder else locate(folder or ".", {}).uri.rstrip("/"))
    return {row["uri"] for row in videos if row["member"]}, folders
