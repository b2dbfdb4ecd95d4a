"""Ground. Everything that can go wrong, said once.

Two kinds, kept apart:

* **Exceptions** end the run. The tree, all under `FeatrayError`::

      FeatrayError
      ├── UsageError          the command line or a value on it            exit 2
      │   └── ConfigError     a config file or one of its keys             exit 2
      ├── StorageError        a bucket, folder or object we must read or write
      │   ├── NotFound        it is not there
      │   ├── AccessDenied    we may not
      │   ├── Unreachable     the storage does not answer, or there are no credentials to ask it with
      │   └── OutputError     the output is not ours, or is damaged
      │       └── LeaseError  the dataset and release are held by another run
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
    ErrorCode.NOT_A_VIDEO: "the bytes are no media file",
    ErrorCode.NO_VIDEO_STREAM: "a media file without a video stream (audio only, cover art only)",
    ErrorCode.UNSUPPORTED_CONTAINER: "a container that featray does not open (playlists, images, exotic formats)",
    ErrorCode.UNSUPPORTED_CODEC: "a video codec that this FFmpeg build cannot decode",
    ErrorCode.TRUNCATED: "the file ends before its own structure says that it should",
    ErrorCode.DECODE_FAILED: "the decoder reported damaged data; the frames that decode are kept",
    ErrorCode.DECODER_CRASHED: "the decoding process died (signal) on this unit",
    ErrorCode.TIMEOUT: "the unit took longer than decode.timeout_seconds",
    ErrorCode.OUT_OF_MEMORY: "the unit needed more memory than allowed",
    ErrorCode.TOO_LARGE: "frame size, duration or stream count beyond the configured limits",
    ErrorCode.FETCH_FAILED: "the object could not be read, after retries",
    ErrorCode.ACCESS_DENIED: "the storage refused to let us read the object",
    ErrorCode.ARCHIVED: "the object lies in an archive (Glacier) and has to be restored before it can be read",
    ErrorCode.BAD_SHARD: "a tar or Parquet shard file, or one of its members, is malformed",
    ErrorCode.BAD_MANIFEST_ROW: "a row of a manifest is malformed, or names a place that it may not name",
    ErrorCode.BAD_BOXES: "precomputed boxes for this video are missing or malformed",
    ErrorCode.INFERENCE_FAILED: "the network failed on this unit's chips",
    ErrorCode.LOST: "the unit was scheduled but gave no result in any attempt",
}
"""One plain sentence a code, for the docs and for messages."""


ERROR_FIXES: dict[ErrorCode, str] = {
    ErrorCode.NOT_A_VIDEO: "Leave it out of `input.uris`, or upload it again.",
    ErrorCode.NO_VIDEO_STREAM: "Leave it out.",
    ErrorCode.UNSUPPORTED_CONTAINER: "Convert it to mp4 or mkv.",
    ErrorCode.UNSUPPORTED_CODEC: "Convert it.",
    ErrorCode.TRUNCATED: "Upload it again. What is there was processed.",
    ErrorCode.DECODE_FAILED: "Look at it in a player; upload it again.",
    ErrorCode.DECODER_CRASHED: "If it fails again, convert the video and report it to featray.",
    ErrorCode.TIMEOUT: "Raise `decode.timeout_seconds`, or lower `decode.unit_frames`.",
    ErrorCode.OUT_OF_MEMORY: "Raise `decode.memory_limit_gib`, or the pod's memory if the node killed it.",
    ErrorCode.TOO_LARGE: "Raise `decode.max_pixels` if you trust the source.",
    ErrorCode.FETCH_FAILED: "Look for throttling and network trouble at the storage.",
    ErrorCode.ACCESS_DENIED: "Give the role the right to read it, then run with `--retry-failed`.",
    ErrorCode.ARCHIVED: "Restore it, then run with `--retry-failed`.",
    ErrorCode.BAD_SHARD: "Write the shard again.",
    ErrorCode.BAD_MANIFEST_ROW: "Fix the row. If it may name that place, add the place to `input.manifest_places`.",
    ErrorCode.BAD_BOXES: "Fix the file of `detect.boxes`.",
    ErrorCode.INFERENCE_FAILED: "Out of GPU memory: lower `model.batch_size`. Else read the worker's log.",
    ErrorCode.LOST: "Workers died again and again: read the logs of killed pods, and give them more memory.",
}
"""What to do about each code, for the docs."""


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
"""Codes that may come from the moment rather than the video: such a unit is tried again."""


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
"""Codes that tell of a video, and nothing of those that are still to come."""


class FeatrayError(Exception):
    """Root of the tree. `str(error)` is one line that names the thing and the fix, and is safe to print.

    Keyword details stay available as `error.details`. Instances survive pickling,
    so that they cross process and Ray boundaries with type, text and details.
    """

    exit_code = 1

    def __init__(self, message: str, **details: Any) -> None:
        # Of a config several problems are told, a line each. Elsewhere a line break is one in a name.
        super().__init__(printable(message) if isinstance(self, ConfigError) else on_one_line(message))
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args[0], self.details))


def printable(text: str) -> str:
    """A text whose characters for terminals, and marks that turn the direction of writing, are written as escapes.

    Names of files and what stands in an output may hold them: they move the cursor, hide words or change settings.
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    """`printable`, with line breaks as escapes too: whoever writes a name into an output adds no line to an answer."""
    return _BREAKS.sub(lambda match: match[0].encode("unicode_escape").decode(), printable(text))


_BREAKS = re.compile("[\n\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All but tabs and line breaks; and halves of surrogate pairs, which no terminal takes."""


def counted(count: float, noun: str, plural: str = "") -> str:
    """Return a number and what it counts, in the plural unless it is one.

    >>> counted(1, "video"), counted(1234, "face"), counted(0.5, "GPU"), counted(2, "entry", "entries")
    ('1 video', '1,234 faces', '0.5 GPUs', '2 entries')
    """
    number = f"{count:,}" if isinstance(count, int) else f"{count:,.12g}"
    return f"{number} {noun if count == 1 else plural or f'{noun}s'}"


def one_line(error: BaseException, most: int = 300) -> str:
    """Return what another library complains of, on one line of at most `most` characters."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def _rebuild(cls: type[FeatrayError], message: str, details: dict[str, Any]) -> FeatrayError:
    return cls(message, **details)


class UsageError(FeatrayError):
    """The command line asks for something that cannot be done."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file is missing, malformed, or has a key or value that is not allowed."""


class StorageError(FeatrayError):
    """A location that the run depends on cannot be listed, read or written."""


class NotFound(StorageError):
    """The object, or its bucket, does not exist."""


class AccessDenied(StorageError):
    """The storage refuses: no credentials, wrong ones, or too few rights."""


class Unreachable(StorageError):
    """The storage does not answer, or there is nothing to ask it with: true of all that lies there, not of one name."""


class OutputError(StorageError):
    """The output location is not a featray output, or is damaged."""


class LeaseError(OutputError):
    """Another run holds the dataset and release, or has taken them over from this one."""


class ModelError(FeatrayError):
    """A checkpoint cannot be used; the message names the key or tensor."""


class LicenseError(ModelError):
    """Weights whose licence the user has not accepted yet."""

    exit_code = 2


class WeightsMissing(ModelError):
    """Weights that are not here; the message names the command that fetches them."""


class RunError(FeatrayError):
    """The run as a whole failed; what had landed is kept and the next run goes on from it."""


class VideoError(FeatrayError):
    """One video or unit failed. `code` says how; it becomes a row of the `errors` table."""

    def __init__(self, message: str, *, code: ErrorCode, **details: Any) -> None:
        super().__init__(message, code=code, **details)
        self.code = ErrorCode(code)
