"""Store. The failures of storage libraries, as featray's own errors in one line: missing, denied, archived, busy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from featray.errors import AccessDenied, ErrorCode, NotFound, StorageError, Unreachable
from featray.redaction import redact_uri


class Meaning(NamedTuple):
    """The meaning of a failed request: a code of the `errors` table and a message."""

    code: ErrorCode
    text: str


# FETCH_FAILED for causes that are temporary: a retry may find other credentials or another clock.
_EXPIRED: Final = Meaning(
    ErrorCode.FETCH_FAILED,
    "the credentials have expired; get new ones (such as `aws sso login`, or a new session token) and run again",
)
_ARCHIVED: Final = Meaning(
    ErrorCode.ARCHIVED, "is archived (Glacier); restore it, or copy it to another storage class, and run again"
)
_BUSY: Final = Meaning(
    ErrorCode.FETCH_FAILED,
    "the storage is overloaded or down for the moment (503), after several tries; run again later, with fewer workers "
    "if it stays",
)
_MEANINGS: Final = {
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "503": _BUSY,
    "InvalidObjectState": _ARCHIVED,
    "BlobArchived": _ARCHIVED,
    "RequestTimeTooSkewed": Meaning(
        ErrorCode.FETCH_FAILED, "this machine's clock differs too much from the storage's; set it (NTP) and run again"
    ),
    "400": Meaning(  # S3's answer to HEAD contains only its status
        ErrorCode.FETCH_FAILED,
        "the storage refuses without a reason (400); check the region, and that the credentials have not expired",
    ),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "UnauthorizedSSOTokenError": _EXPIRED,
    "SSOTokenLoadError": _EXPIRED,
    "TokenRetrievalError": _EXPIRED,
}
"""Meanings by the code in S3's or Azure's answer, or by the name of botocore's exception."""


def meaning(error: BaseException | None) -> Meaning | None:
    """Return the meaning of a storage error, if it or one of its causes has a known code."""
    while error is not None:
        response = getattr(error, "response", None)
        answer = response.get("Error", {}) if isinstance(response, dict) else {}
        for code in (answer.get("Code"), getattr(error, "error_code", None), type(error).__name__):
            if isinstance(code, str) and code in _MEANINGS:
                return _MEANINGS[code]
        error = error.__cause__
    return None


def transport_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that storage libraries raise when a place cannot be reached or read.

    s3fs and gcsfs translate most failures to `OSError`. Exceptions of lower layers are added
    only if their module is loaded, so that no module is imported just for its exceptions.
    """
    found: list[type[Exception]] = [OSError, TimeoutError]
    found += [getattr(sys.modules[module], name) for module, name in _LIBRARIES_ERRORS if module in sys.modules]
    return tuple(found)


_LIBRARIES_ERRORS = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("httpx", "HTTPError"),  # used by huggingface_hub before 2
    ("httpx2", "HTTPError"),
)


_WHERE = "in the environment or as storage options (storage_options in the config, or --storage-option)"


def explain(error: BaseException) -> str:
    """Return a short description of a storage error, without any address from the library's message."""
    if known := meaning(error):
        return known.text
    if isinstance(error, PermissionError) and error.filename and not error.__cause__:  # a local file
        return f"access denied; this user (uid {os.getuid()}) lacks the rights: change its owner or mode"
    if _is_of_hub(error) and _is_denied(error):
        return "access denied, or no such repository; set HF_TOKEN, and accept the terms on its page, if it has any"
    if _is_denied(error):
        return f"access denied; check the credentials {_WHERE}, and that they have not expired"
    if type(error).__name__ == _NO_CREDENTIALS:
        return f"no credentials found; set them {_WHERE}; for a public bucket set `anon: true` there"
    if silence := _silence(error):
        server = f"; for a store other than AWS, set `endpoint_url` {_WHERE}" if silence == _NO_S3_ENDPOINT else ""
        return f"the storage does not answer ({silence}){server}"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    name = type(error).__name__
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else name
    return f"cannot be read or written ({reason})"


_NO_CREDENTIALS = "NoCredentialsError"
_NO_S3_ENDPOINT = "EndpointConnectionError"


def _silence(error: BaseException | None) -> str | None:
    """Return the name of a timeout or connection error in the chain of causes: fsspec reports one as "not found"."""
    while error is not None:
        name = type(error).__name__
        if isinstance(error, TimeoutError) or "timeout" in name.lower() or "connect" in name.lower():
            return name
        error = error.__cause__
    return None


def unreadable_code(error: BaseException) -> ErrorCode:
    """Return the error code of a video whose storage raised this: access denied or fetch failed."""
    if known := meaning(error):
        return known.code
    denied = isinstance(error, AccessDenied) or _is_denied(error)
    return ErrorCode.ACCESS_DENIED if denied else ErrorCode.FETCH_FAILED


def _is_denied(error: BaseException | None) -> bool:
    """Return whether access was denied; fsspec reports a 403 of a link as "not found", with the reason as its cause."""
    while error is not None:
        answer = getattr(getattr(error, "response", None), "status_code", None)  # Hugging Face hub, Azure
        if isinstance(error, PermissionError) or {getattr(error, "status", None), answer} & {401, 403}:
            return True
        error = error.__cause__
    return False


def _is_of_hub(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__module__.startswith("huggingface_hub"):
            return True
        error = error.__cause__
    return False


NO_PLACE: Final = "cannot be created: its bucket, or a folder above it, does not exist"


@contextmanager
def storage_errors(uri: str, *, missing: str = "does not exist") -> Iterator[None]:
    """Turn storage exceptions inside the block into a one-line StorageError about `uri`.

    Args:
        uri: the place that the block reads or writes.
        missing: the message if it, or its bucket, does not exist.
    """
    try:
        yield
    except transport_errors() as error:
        raise as_storage_error(error, redact_uri(uri), missing) from error


def as_storage_error(error: BaseException, uri: str, missing: str = "does not exist") -> StorageError:
    """Return a storage exception as featray's own error."""
    if _is_denied(error):
        return AccessDenied(f"{uri}: {explain(error)}")
    if _silence(error) or type(error).__name__ == _NO_CREDENTIALS or meaning(error) is _BUSY:
        return Unreachable(f"{uri}: {explain(error)}")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{uri}: {missing}")
    return StorageError(f"{uri}: {explain(error)}")
