"""Store. Explain refusals whose storage error code says more than "denied": archived, expired, wrong clock, busy."""

from __future__ import annotations

from typing import Final, NamedTuple

from featray.errors import ErrorCode


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
