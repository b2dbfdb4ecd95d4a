"""Ground. The tree of exceptions, and the codes of errors that become rows.

Two kinds, kept apart:

* **Exceptions** end the run. The tree, all under `FeatrayError`::

      FeatrayError
      ├── UsageError          the command line or a value on it            exit 2
      │   └── ConfigError     a config file or one of its keys             exit 2
      ├── StorageError        a bucket, folder or object that must be read or written
      │   ├── NotFound        it does not exist
      │   ├── AccessDenied    access is refused
      │   ├── Unreachable     the storage is down or does not answer, or credentials are missing
      │   └── OutputError     the location is not a featray output, or is damaged
      │       └── LeaseError  another run holds the dataset and release
      ├── ModelError          a checkpoint or one of its tensors
      │   ├── LicenseError    a licence that has not been accepted         exit 2
      │   └── WeightsMissing  weights that have to be fetched first
      ├── RunError            the run itself failed
      └── VideoError          one video or unit; carries a code and becomes an errors row

* **Codes** describe what happened to one video or one unit and become rows of the
  `errors` table. The list is closed: users filter on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """The closed list of `errors.error_code`."""

    NOT_A_VIDEO = "not_a_video"
    NO_VIDEO_STREAM = "no_video_stream"
    UNSUPPORTED_CONTAINER = "unsupported_container"
    UNSUPPORTED_CODEC = "unsupported_codec"
    TRUNCATED = "truncated"
    DECODE_FAILED = "decode_failed"
    DECODER_CRASHED = "decoder_crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    TOO_LARGE = "too_large"
    FETCH_FAILED = "fetch_failed"
    ACCESS_DENIED = "access_denied"
    ARCHIVED = "archived"
    BAD_SHARD = "bad_shard"
    BAD_MANIFEST_ROW = "bad_manifest_row"
    BAD_BOXES = "bad_boxes"
    INFERENCE_FAILED = "inference_failed"
    LOST = "lost"


ERROR_MEANINGS: dict[ErrorCode, str] = {
    ErrorCode.NOT_A_VIDEO: "the bytes are not a media file",
    ErrorCode.NO_VIDEO_STREAM: "a media file without a video stream (audio only, cover art only)",
    ErrorCode.UNSUPPORTED_CONTAINER: "a container that featray does not open (playlists, images, exotic formats)",
    ErrorCode.UNSUPPORTED_CODEC: "a video codec that this FFmpeg build cannot decode",
    ErrorCode.TRUNCATED: "the file ends before its own structure says it should",
    ErrorCode.DECODE_FAILED: "the decoder reported damaged data; frames that could be decoded are kept",
    ErrorCode.DECODER_CRASHED: "the decoding process died (by a signal) on this unit",
    ErrorCode.TIMEOUT: "the unit took longer than decode.timeout_seconds",
    ErrorCode.OUT_OF_MEMORY: "the unit needed more memory than allowed",
    ErrorCode.TOO_LARGE: "frame size, duration or stream count beyond the configured limits",
    ErrorCode.FETCH_FAILED: "the object could not be read, after retries",
    ErrorCode.ACCESS_DENIED: "the storage denied read access to the object",
    ErrorCode.ARCHIVED: "the object is archived (Glacier) and must be restored before it can be read",
    ErrorCode.BAD_SHARD: "a tar or Parquet shard file, or one of its members, is malformed",
    ErrorCode.BAD_MANIFEST_ROW: "a manifest or one of its rows is malformed, or names a place that is not allowed",
    ErrorCode.BAD_BOXES: "precomputed boxes for this video are missing or malformed",
    ErrorCode.INFERENCE_FAILED: "the network failed on this unit's chips",
    ErrorCode.LOST: "the unit was scheduled but returned no result in any attempt",
}
"""The meaning of each code, for the docs and for messages."""


ERROR_FIXES: dict[ErrorCode, str] = {
    ErrorCode.NOT_A_VIDEO: "Leave it out of `input.uris`, or upload it again.",
    ErrorCode.NO_VIDEO_STREAM: "Leave it out.",
    ErrorCode.UNSUPPORTED_CONTAINER: "Convert it to mp4 or mkv; for pictures, set what the message names.",
    ErrorCode.UNSUPPORTED_CODEC: "Convert it.",
    ErrorCode.TRUNCATED: "Upload it again. The part before the end was processed.",
    ErrorCode.DECODE_FAILED: "Check it in a player; upload it again.",
    ErrorCode.DECODER_CRASHED: "If it fails again, convert the video and report it to featray.",
    ErrorCode.TIMEOUT: "Raise `decode.timeout_seconds`, or lower `decode.unit_frames`.",
    ErrorCode.OUT_OF_MEMORY: "Raise `decode.memory_limit_gib`, or the pod's memory if the node killed it.",
    ErrorCode.TOO_LARGE: "Raise `decode.max_pixels` if you trust the source.",
    ErrorCode.FETCH_FAILED: "If it does not exist, correct the name in the manifest. Otherwise check the storage for "
    "throttling and network errors.",
    ErrorCode.ACCESS_DENIED: "Grant the role read access, then run with `--retry-failed`.",
    ErrorCode.ARCHIVED: "Restore it, then run with `--retry-failed`.",
    ErrorCode.BAD_SHARD: "Write the shard again.",
    ErrorCode.BAD_MANIFEST_ROW: "Fix the row. To allow the place, add it to `input.manifest_places`.",
    ErrorCode.BAD_BOXES: "Fix the file named by `detect.boxes`.",
    ErrorCode.INFERENCE_FAILED: "If out of GPU memory, lower `model.batch_size`. Otherwise read the worker's log: "
    "with Ray on its node in `/tmp/ray/session_latest/logs`, or in the dashboard; else the run's own output.",
    ErrorCode.LOST: "Workers died repeatedly: read the logs of killed pods, and give them more memory.",
}
"""The fix for each code, for the docs."""


RETRYABLE: frozenset[ErrorCode] = frozenset(
    {
        ErrorCode.FETCH_FAILED,
        ErrorCode.TIMEOUT,
        ErrorCode.DECODER_CRASHED,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.INFERENCE_FAILED,
        ErrorCode.LOST,
    }
)
"""Codes whose cause may be temporary: such a unit is retried."""


OF_THE_VIDEO: frozenset[ErrorCode] = frozenset(
    {
        ErrorCode.NOT_A_VIDEO,
        ErrorCode.NO_VIDEO_STREAM,
        ErrorCode.UNSUPPORTED_CONTAINER,
        ErrorCode.UNSUPPORTED_CODEC,
        ErrorCode.TRUNCATED,
        ErrorCode.DECODE_FAILED,
        ErrorCode.TOO_LARGE,
        ErrorCode.ARCHIVED,
        ErrorCode.BAD_SHARD,
        ErrorCode.BAD_MANIFEST_ROW,
    }
)
"""Codes caused by the video itself, which say nothing about the other videos of the run."""


class FeatrayError(Exception):
    """Root of the tree. `str(error)` is one line that names the problem and the fix, and is safe to print.

    Keyword details are available as `error.details`. Instances survive pickling,
    so they cross process and Ray boundaries with type, text and details.
    """

    exit_code = 1

    def __init__(self, message: str, **details: Any) -> None:
        # Of a config several problems are told, a line each. Elsewhere a line break is one in a name.
        super().__init__(printable(message) if isinstance(self, ConfigError) else on_one_line(message))
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args[0], self.details))


def printable(text: str) -> str:
    """Return a text with terminal control characters and bidirectional marks written as escapes.

    File names and data in an output may contain them; they can move the cursor, hide words or change settings.
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    """Return `printable` text with line breaks escaped too: a name in an output then adds no line to a message."""
    return _BREAKS.sub(lambda match: match[0].encode("unicode_escape").decode(), printable(text))


def shown(text: str, most: int = 100) -> str:
    """Return somebody's text `on_one_line`, cut to a length that fits a message."""
    return on_one_line(text if len(text) <= most else f"{text[:most]}...")


def columns_shown(names: Sequence[str]) -> str:
    """Return the first 20 columns of somebody's table, each cut to 40 characters; `none` if there are none.

    >>> columns_shown(["clip", "x" * 50])
    'clip, xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'
    """
    return ", ".join([*(shown(name, 40) for name in names[:20]), *(["..."] if len(names) > 20 else [])]) or "none"


_BREAKS = re.compile("[\n\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All except tabs and line breaks; also lone surrogates, which terminals cannot print."""


def in_bytes(size: int) -> str:
    """Return a size in kB, or in MB from a tenth of one.

    >>> in_bytes(2_300), in_bytes(2_300_000)
    ('2.3 kB', '2.3 MB')
    """
    return f"{size / 1e3:.1f} kB" if size < 100_000 else f"{size / 1e6:.1f} MB"


def counted(count: float, noun: str, plural: str = "") -> str:
    """Return a number and its noun, in the plural unless the number is one.

    >>> counted(1, "video"), counted(1234, "face"), counted(0.5, "GPU"), counted(2, "entry", "entries")
    ('1 video', '1,234 faces', '0.5 GPUs', '2 entries')
    """
    number = f"{count:,}" if isinstance(count, int) else f"{count:,.12g}"
    return f"{number} {noun if count == 1 else plural or f'{noun}s'}"


def one_line(error: BaseException, most: int = 300) -> str:
    """Return another library's error message on one line of at most `most` characters."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def _rebuild(cls: type[FeatrayError], message: str, details: dict[str, Any]) -> FeatrayError:
    return cls(message, **details)


class UsageError(FeatrayError):
    """The command line asks for something impossible."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file is missing, malformed, or has a key or value that is not allowed."""


class StorageError(FeatrayError):
    """A location that the run depends on cannot be listed, read or written."""


class NotFound(StorageError):
    """The object, or its bucket, does not exist."""


class AccessDenied(StorageError):
    """The storage denies access: credentials are missing, wrong, or have too few rights."""


class Unreachable(StorageError):
    """The storage is down or does not answer, or credentials are missing: affects all of it, not one object."""


class OutputError(StorageError):
    """The output location is not a featray output, or is damaged."""


class LeaseError(OutputError):
    """Another run holds the lease of the dataset and release, or has taken it over from this one."""


class ModelError(FeatrayError):
    """A checkpoint cannot be used; the message names the key or tensor."""


class LicenseError(ModelError):
    """Weights whose licence the user has not accepted yet."""

    exit_code = 2


class WeightsMissing(ModelError):
    """Weights that have not been fetched yet; the message names the command that fetches them."""


class RunError(FeatrayError):
    """The run as a whole failed; landed work is kept and the next run resumes from it."""


class VideoError(FeatrayError):
    """One video or unit failed. `code` says how; it becomes a row of the `errors` table."""

    def __init__(self, message: str, *, code: ErrorCode, **details: Any) -> None:
        super().__init__(message, code=code, **details)
        self.code = ErrorCode(code)
