"""Video. Identify a file that could not be opened from its first bytes, for the text and code of the error."""

from __future__ import annotations

from dataclasses import dataclass

from featray.errors import ErrorCode


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        text: description of the kind of file.
        code: error code for such a file.
        container: FFmpeg's name of the format if featray opens it, else None.
    """

    text: str
    code: ErrorCode
    container: str | None = None


def _video(text: str, container: str) -> Kind:
    return Kind(text, ErrorCode.DECODE_FAILED, container)


def _audio(text: str) -> Kind:
    return Kind(f"{text}, without a video stream", ErrorCode.NO_VIDEO_STREAM)


def _other(text: str) -> Kind:
    return Kind(f"{text}, which is not supported", ErrorCode.UNSUPPORTED_CONTAINER)


_NOTHING = Kind("the bytes are not a video that FFmpeg knows", ErrorCode.NOT_A_VIDEO)

_MARKS: tuple[tuple[int, bytes, Kind], ...] = (
    (4, b"ftypavif", _other("an AVIF image")),
    (4, b"ftyphei", _other("a HEIF image")),
    (4, b"ftypmif1", _other("a HEIF image")),
    *((4, box, _video("an mp4 file", "mov")) for box in (b"ftyp", b"moov", b"mdat", b"moof", b"styp", b"wide")),
    (0, b"\x1a\x45\xdf\xa3", _video("a Matroska file", "matroska")),
    (8, b"AVI ", _video("an AVI file", "avi")),
    (8, b"WAVE", _audio("a WAV file")),
    (8, b"WEBP", _other("a WebP image")),
    (8, b"AIFF", _audio("an AIFF file")),
    (0, b"FLV", _video("an FLV file", "flv")),
    (0, b"OggS", _video("an Ogg file", "ogg")),
    (0, bytes.fromhex("3026b2758e66cf11"), _video("an ASF file", "asf")),
    (0, b"\x00\x00\x01\xba", _video("an MPEG program stream", "mpeg")),
    (0, b"ID3", _audio("an MP3 file")),
    (0, b"\xff\xfb", _audio("an MP3 file")),
    (0, b"\xff\xf3", _audio("an MP3 file")),
    (0, b"\xff\xf1", _audio("an AAC file")),
    (0, b"\xff\xf9", _audio("an AAC file")),
    (0, b"fLaC", _audio("a FLAC file")),
    (0, b"#!AMR", _audio("an AMR file")),
    (0, b"caff", _audio("a CAF file")),
    (0, b"\x89PNG", _other("a PNG image")),
    (0, b"\xff\xd8\xff", _other("a JPEG image")),
    (0, b"GIF8", _other("a GIF image")),
    (0, b"BM", _other("a BMP image")),
    (0, b"II*\x00", _other("a TIFF image")),
    (0, b"MM\x00*", _other("a TIFF image")),
    (0, b"#EXTM3U", _other("an HLS playlist")),
    (0, b"ffconcat", _other("a concat script")),
    (0, b"v=0", _other("an SDP description")),
    (0, b"[playlist]", _other("a playlist")),
    (0, b"DKIF", _other("an IVF file")),
    (0, b"\x06\x0e\x2b\x34", _other("an MXF file")),
    (0, b"PK\x03\x04", _other("a ZIP archive")),
    (0, b"\x1f\x8b", _other("a gzip archive")),
)


def sniff(head: bytes) -> Kind:
    """Return the kind of file that starts with these bytes."""
    if not head:
        return Kind("an empty file", ErrorCode.NOT_A_VIDEO)
    for at, mark, kind in _MARKS:
        if head[at : at + len(mark)] == mark:
            return kind
    if b"<MPD" in head:
        return _other("a DASH manifest")
    for length, lead in ((188, 0), (192, 4), (204, 0)):
        if head[lead::length][:4] == b"\x47\x47\x47\x47":
            return _video("an MPEG transport stream", "mpegts")
    return _raw_stream(head) or _NOTHING


def _raw_stream(head: bytes) -> Kind | None:
    """Return the kind of a raw stream without a container, or None; without times, its frame rate is unknown."""
    start = head[:5].find(b"\0\0\1")
    if start < 0 or head[:start].strip(b"\0") or len(head) < start + 5:
        return None
    first, second = head[start + 3 : start + 5]
    if second == 1 and first >> 1 in (32, 33, 35):  # VPS, SPS, access unit delimiter
        name = "HEVC"
    elif first < 0x80 and first & 0x1F in (7, 9):  # SPS, access unit delimiter
        name = "H.264"
    else:
        return None
    wrap = "ffmpeg -r 25 -i FILE -c copy FILE.mp4"
    text = f"a raw {name} stream, which has no times; wrap it with its own frame rate: {wrap}"
    return Kind(text, ErrorCode.UNSUPPORTED_CONTAINER)
