"""Bad files, each made from a good one or from nothing: cut, flipped, disguised, or built to hurt."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

from tests.unit.video.corpus import Corpus, run_ffmpeg

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"mvex")


def cut_at(data: bytes, share: float) -> bytes:
    """The first part of a file, never at a round place."""
    return data[: int(len(data) * share) - 7]


def flipped(data: bytes, seed: int) -> bytes:
    """Some bits flipped: one, a few or many."""
    chance = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 5, 50))):
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def noise(seed: int, size: int = 60_000) -> bytes:
    """What encrypted data looks like."""
    return random.Random(seed).randbytes(size)


def box(kind: bytes, content: bytes = b"") -> bytes:
    """An mp4 box."""
    return struct.pack(">I4s", len(content) + 8, kind) + content


def edit_boxes(data: bytes, edit: Callable[[bytes, bytes], bytes | None]) -> bytes:
    """Rewrite an mp4: `edit(kind, content)` gives new content, or None to leave the box; sizes are kept right."""
    out, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + size]
        changed = edit(kind, content)
        if changed is None:
            changed = edit_boxes(content, edit) if kind in CONTAINERS else content
        out.append(box(kind, changed))
        at += size
    return b"".join(out)


def with_field(data: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """The same mp4 with some bytes of a box's content replaced."""

    def edit(this: bytes, content: bytes) -> bytes | None:
        if this != kind:
            return None
        return content[:offset] + value + content[offset + len(value) :]

    return edit_boxes(data, edit)


def with_streams(data: bytes, number: int) -> bytes:
    """An mp4 whose tracks are repeated until there are so many."""

    def edit(kind: bytes, content: bytes) -> bytes | None:
        if kind != b"moov":
            return None
        at, trak = 0, b""
        while at < len(content):
            size, this = struct.unpack_from(">I4s", content, at)
            if this == b"trak":
                trak = content[at : at + size]
            at += size
        return content + trak * (number - 1)

    return edit_boxes(data, edit)


def external_reference(data: bytes, target: Path) -> bytes:
    """An mp4 that says that its media lie in another file."""
    url = box(b"url ", bytes(4) + f"file://{target}".encode() + b"\x00")

    def edit(kind: bytes, _: bytes) -> bytes | None:
        return struct.pack(">II", 0, 1) + url if kind == b"dref" else None

    return edit_boxes(data, edit)


def playlists(target: Path, address: str) -> dict[str, tuple[str, str]]:
    """Files that name others, a local and a remote one, with the code that each gives."""
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "hls_local": (hls.format(target), "unsupported_container"),
        "hls_remote": (hls.format(f"{address}/a.ts"), "unsupported_container"),
        "hls_key": (
            f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{address}/key"\n#EXTINF:2,\n{target}\n',
            "unsupported_container",
        ),
        "ffconcat": (f"ffconcat version 1.0\nfile '{target}'\n", "unsupported_container"),
        "concat_url": (f"concat:{target}|{target}\n", "not_a_video"),
        "subfile_url": (f"subfile,,start,0,end,40000,,:{target}\n", "not_a_video"),
        "sdp": (
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
            "unsupported_container",
        ),
        "dash": (
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1" bandwidth="1"><BaseURL>{address}/x.mp4</BaseURL></Representation>'
            "</AdaptationSet></Period></MPD>",
            "unsupported_container",
        ),
        "pls": (f"[playlist]\nFile1={target}\nNumberOfEntries=1\n", "unsupported_container"),
        "bare_path": (f"{target}\n", "not_a_video"),
        "bare_url": (f"{address}/video.mp4\n", "not_a_video"),
    }


def other_media(folder: Path) -> dict[str, tuple[Path, str]]:
    """Media files that hold no video that we open, with the code that each gives."""
    tone, picture = "sine=frequency=440:duration=0.5", "testsrc2=size=64x48:rate=5:duration=0.2"
    made = {}
    for name, source, code in (
        ("a.mp3", tone, "no_video_stream"),
        ("a.wav", tone, "no_video_stream"),
        ("a.aac", tone, "no_video_stream"),
        ("a.flac", tone, "no_video_stream"),
        ("a.m4a", tone, "no_video_stream"),
        ("a.mka", tone, "no_video_stream"),
        ("a.ogg", tone, "no_video_stream"),
        ("a.wma", tone, "no_video_stream"),
        ("a.jpg", picture, "unsupported_container"),
        ("a.png", picture, "unsupported_container"),
        ("a.gif", picture, "unsupported_container"),
        ("a.bmp", picture, "unsupported_container"),
        ("a.tiff", picture, "unsupported_container"),
        ("a.webp", picture, "unsupported_container"),
        ("a.ivf", f"{picture} -c:v libvpx", "unsupported_container"),
        ("a.mxf", f"{picture} -c:v mpeg2video -r 25", "unsupported_container"),
    ):
        path = folder / name
        words = ["-f", "lavfi", "-i", *source.split()]
        run_ffmpeg(*words, *(["-frames:v", "1"] if "unsupported" in code else []), str(path))
        made[name] = (path, code)
    return made


def hostile(corpus: Corpus) -> dict[str, bytes]:
    """Files that are built to hurt: absurd sizes, counts and times."""
    good, plain = (corpus.path(name).read_bytes() for name in ("bframes.mp4", "no_edit_list.mp4"))
    rgb = corpus.path("rgb.mov").read_bytes()
    boxes = b"".join(box(b"free") for _ in range(200_000))
    nested = b""
    for _ in range(2_000):
        nested = box(b"moov", nested)
    ftyp = box(b"ftyp", b"isom\x00\x00\x02\x00isomiso2avc1mp41")
    return {
        "box_of_exabytes": ftyp + struct.pack(">I4sQ", 1, b"moov", 2**60) + good[40:],
        "box_of_no_size": ftyp + struct.pack(">I4s", 4, b"moov") + bytes(64),
        "tiny_boxes": ftyp + boxes,
        "tiny_boxes_before": ftyp + boxes + box(b"moov", boxes),
        "nested_boxes": ftyp + nested,
        "only_ftyp": ftyp,
        "ftyp_and_noise": ftyp + noise(5),
        "ebml_and_noise": b"\x1a\x45\xdf\xa3" + noise(6),
        "riff_and_noise": b"RIFF\xff\xff\xff\x7fAVI LIST" + noise(7),
        "sync_bytes": b"\x47" * 188 * 500,
        "pack_headers": b"\x00\x00\x01\xba" * 5000,
        "flv_header": b"FLV\x01\x05\x00\x00\x00\x09" + noise(8),
        "ogg_pages": (b"OggS\x00\x02" + bytes(20) + b"\x00") * 3000,
        "asf_header": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<QI", 2**62, 2**31) + noise(9),
        "zeros": bytes(200_000),
        "many_streams": with_streams(good, 500),
        "too_many_streams": with_streams(good, 3000),
        "many_samples": with_field(plain, b"stsz", 4, struct.pack(">II", 1, 5_000_000)),
        "no_samples": with_field(plain, b"stsz", 4, struct.pack(">II", 0, 0)),
        "no_time_base": with_field(plain, b"mdhd", 12, struct.pack(">I", 0)),
        "absurd_time_base": with_field(plain, b"mdhd", 12, struct.pack(">I", 2**32 - 1)),
        "second_time_base": with_field(plain, b"mdhd", 12, struct.pack(">I", 1)),
        "absurd_duration": with_field(plain, b"mdhd", 16, struct.pack(">I", 2**32 - 2)),
        "absurd_times": with_field(plain, b"stts", 8, struct.pack(">II", 50, 2**31 - 1)),
        "absurd_times_in_seconds": with_field(
            with_field(plain, b"mdhd", 12, struct.pack(">I", 1)), b"stts", 8, struct.pack(">II", 50, 2**31 - 1)
        ),
        "absurd_offsets": with_field(plain, b"ctts", 8, struct.pack(">II", 2**32 - 1, 2**31 - 1)),
        "offsets_outside": with_field(plain, b"stco", 8, struct.pack(">I", 2**31)),
        "wide_picture": with_field(rgb, b"stsd", 40, struct.pack(">HH", 16_000, 16_000)),
        "widest_picture": with_field(rgb, b"stsd", 40, struct.pack(">HH", 65_000, 65_000)),
    }
