"""Tables. Find a video by the names that people use: its id, its URI, or the last parts of its URI."""

from __future__ import annotations

import re

from featray.errors import UsageError, counted
from featray.identity import video_id
from featray.store.storage import locate
from featray.tables.layout import Output
from featray.tables.published import Published, read_steadily
from featray.tables.query import connect, literal, read_rows, run_sql


def is_named(name: str) -> str:
    """Return the SQL condition on `videos` for a video with this id, this URI, or a URI with this end (`face.mp4`)."""
    place = "coalesce(uri || '#' || member, uri)"
    ending = f"ends_with({place}, {literal('/' + name)}) OR ends_with({place}, {literal('#' + name)})"
    return f"(video_id = {literal(name)} OR {place} = {literal(name)} OR uri = {literal(name)} OR {ending})"


def not_named(name: str) -> UsageError:
    """Return the error for a name that no video has."""
    return UsageError(
        f"--video {name}: not in this output; give a video_id, a URI, or the last parts of one; "
        'list them with `featray query OUT "SELECT video_id, uri FROM videos"`'
    )


def find_video_id(output: Output, name: str) -> str:
    """Return the id of the one video that a name refers to, in any release.

    An id is returned unchanged. The URI or absolute path of an unpublished video is converted to its id, because such a
    video may have landed or be partly erased.

    Raises:
        UsageError: no video has this name, or several do.
    """
    if re.fullmatch("[0-9a-f]{16}", name):
        return name
    sql = f"SELECT DISTINCT video_id, coalesce(uri || '#' || member, uri) AS place FROM videos WHERE {is_named(name)}"

    def read(published: list[Published]) -> dict[str, str]:
        connection = connect(output, tables=("videos",), published=published)
        return {row["video_id"]: row["place"] for row in read_rows(run_sql(connection, sql))}

    found = read_steadily(output, read, "all")
    if len(found) > 1:
        places = ", ".join(f"{place} ({one})" for one, place in sorted(found.items())[:5])
        raise UsageError(f"--video {name}: matches {counted(len(found), 'video')}: {places}; give the id of one")
    if found:
        return str(next(iter(found)))
    if "://" in name or name.startswith("/"):
        uri, _, member = name.partition("#")
        return video_id(locate(uri, {}).uri, member or None)
    raise not_named(name)
