"""Store. What a refusal means where the storage's own code says more than "denied": archived, expired, wrong clock."""

from __future__ import annotations

from typing import Final, NamedTuple

from featray.errors import ErrorCode


class Meaning(NamedTuple):
    """The meaning of a failed request, as a code of the `errors` table and in words."""

    code: ErrorCode
    text: str


# Both tell of the moment and not of the object: what is tried again later may find other credentials, or another clock.
_EXPIRED: Final = Meaning(
    ErrorCode.FETCH_FAILED,
    "the credentials have expired; get new ones (such as `aws sso login`, or a new session token) and run again",
)
_ARCHIVED: Final = Meaning(
    ErrorCode.ARCHIVED, "lies in an archive (Glacier); restore it, or copy it to another storage class, and run again"
)
_MEANINGS: Final = {
    "InvalidObjectState": _ARCHIVED,
    "BlobArchived": _ARCHIVED,
    "RequestTimeTooSkewed": Meaning(
        ErrorCode.FETCH_FAILED, "this machine's clock differs too much from the storage's; set it (NTP) and run again"
    ),
    "400": Meaning(  # S3's answer to HEAD has no more than its status
        ErrorCode.FETCH_FAILED,
        "the storage refuses and does not say why (400); the credentials may have expired, or the region may be wrong",
    ),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "UnauthorizedSSOTokenError": _EXPIRED,
    "SSOTokenLoadError": _EXPIRED,
    "TokenRetrievalError": _EXPIRED,
}
"""By the code in S3's or Azure's answer, or by the name of botocore's exception."""


def meaning(error: BaseException | None) -> Meaning | None:
    """Return what a storage's error means, if it or one of its causes has a code that says so."""
    while error is not None:
        response = getattr(error, "response", None)
        answer = response.get("Error", {}) if isinstance(response, dict) else {}
        for code in (answer.get("Code"), getattr(error, "error_code", None), type(error).__name__):
            if isinstance(code, str) and code in _MEANINGS:
                return _MEANINGS[code]
        error = error.__cause__
    return None
