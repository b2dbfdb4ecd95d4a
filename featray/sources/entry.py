"""Sources. An entry of a shard file or manifest, and the suffixes that determine the type of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

VIDEO_SUFFIXES: Final = frozenset(
    """
    .mp4 .m4v .m4p .mp4v .mov .qt .mqv .f4v .f4p .3gp .3gpp .3g2 .3gp2 .ismv .insv .lrv .360
    .mkv .mk3d .webm .avi .divx .xvid
    .ts .tp .trp .mts .m2t .m2ts .tod
    .mpg .mpeg .mpe .m1v .m2v .mpv .mp2v .mod .vob .vro .evo
    .ogv .ogg .ogm .ogx .flv .wmv .wm .asf .dvr-ms
    """.split()
)
"""Suffixes of the files to list below a prefix or in a tar. A glob or a plain name may match any suffix."""

PICTURE_SUFFIXES: Final = frozenset(".jpg .jpeg .jpe .jfif .png .webp .tif .tiff .bmp .dib".split())
"""Suffixes of the pictures of sequences."""

MAX_BYTES: Final = 1 << 60
"""Limit for the size of a video, as told by a tar's header or a web server; more is a lie that no column can hold."""

MAX_ENTRIES: Final = 1_000_000
"""Limit for videos or pictures in one tar, folder of pictures or table of bytes; more is a mistake or an attack."""


@dataclass(frozen=True)
class Entry:
    """A video that is contained in a file or named by it.

    Attributes:
        member: name inside the file; None if the entry names a video elsewhere.
        uri: URI of a video elsewhere; None for a member.
        place: position of the member's bytes: `{"offset": n, "size": n}` in a tar, or
            `{"row_group": n, "row": n, "column": name}` in a Parquet file, with `"field": "bytes"` for a struct.
        size_bytes: size of the member; -1 if unknown.
        extra: the other columns of a manifest, as plain JSON data.
        problem: error code and message if the entry cannot be read.
        is_picture: whether it is a picture of a sequence.
    """

    member: str | None = None
    uri: str | None = None
    place: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = -1
    extra: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    is_picture: bool = False


def content_id(info: dict[str, Any]) -> str:
    """Identify the bytes of a file from the storage's listing: by hash, etag or modification time, and size."""
    size = info.get("size")
    for key in ("blob_id", "xet_hash"):  # Hugging Face hub: git's object id in a repository, the hash in a bucket
        if info.get(key):
            return f"{key.partition('_')[0]}:{info[key]}:{size}"
    for key in ("ETag", "etag", "md5", "content_md5", "Content-MD5", "Digest"):
        if info.get(key):
            return f"etag:{str(info[key]).strip(chr(34))}:{size}"
    for key in ("mtime", "LastModified", "last_modified", "Last-Modified", "updated"):
        if info.get(key) is not None:
            return f"mtime:{info[key]}:{size}"
    return f"size:{size}"


def suffix(path: str) -> str:
    """Return the suffix of a path's last part, in lower case and with its dot; empty if there is none."""
    name = path.rsplit("/", 1)[-1]
    return name[name.rfind(".") :].lower() if "." in name else ""


def is_apple_double(path: str) -> bool:
    """Return whether this is a `._` file, which macOS adds for each file on foreign disks and in tars."""
    return path.rsplit("/", 1)[-1].startswith("._")
