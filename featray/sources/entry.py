"""Sources. An entry of a shard file or manifest, and the suffixes that say what a file is taken for."""

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
"""What is taken from a prefix or a tar. A glob or a plain name is taken as written, whatever its suffix."""

PICTURE_SUFFIXES: Final = frozenset(".jpg .jpeg .jpe .jfif .png .webp .tif .tiff .bmp .dib".split())
"""What makes a sequence, where pictures are taken."""

MAX_ENTRIES: Final = 1_000_000
"""Videos or pictures in one tar, folder of pictures or table of bytes: more is a mistake or an attack, and refused."""


@dataclass(frozen=True)
class Entry:
    """A video inside, or named by, a file.

    Attributes:
        member: name inside the file; None if the entry names a video elsewhere.
        uri: of a video elsewhere; None for a member.
        place: where the member's bytes are: `{"offset": n, "size": n}` of a tar, or
            `{"row_group": n, "row": n, "column": name}` of a Parquet file, with `"field": "bytes"` for a struct.
        size_bytes: of the member; -1 if not known.
        extra: the other columns of a manifest, as plain JSON data.
        problem: error code and message of what cannot be read.
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
    """Name the bytes of a file as far as its storage's listing tells: by hash, etag, or modification time, and size."""
    size = info.get("size")
    for key in ("blob_id", "xet_hash"):  # of the Hugging Face hub: git's object id of a repository, else of a bucket
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
    """Return whether macOS wrote this file beside another one, on foreign disks and in tars, under the same suffix."""
    return path.rsplit("/", 1)[-1].startswith("._")
