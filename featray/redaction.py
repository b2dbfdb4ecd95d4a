"""Ground. Remove secrets from URIs, names and storage options before they are printed, logged or stored.

Anything not known to be harmless is removed: a query is kept only where `?` cannot begin one. The result of
`redact_uri` identifies the video (`identity.video_id`), so it must not change for URIs without secrets.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

_SECRET_NAME: Final = re.compile(
    r"secret|token|passw|passphrase|pwd|credential|key|sas|signature|auth|account|connection|cookie|bearer|jwt",
    re.IGNORECASE,
)
_NOT_SECRET: Final = {"key_type", "check_keys"}

_SECRET_TEXT: Final = re.compile(r"\s*(?:basic|bearer)\s", re.IGNORECASE)
_NAMED_TEXT: Final = re.compile(r"([\w-]+)\s*[:=]")

_NAMES_IN_TEXT: Final = (
    r"(?:secret|token|passw|passphrase|pwd|credential|signature|authorization|cookie|bearer|jwt|\bsas\b"
    r"|(?:access|account|api|shared|private|customer)[-_]?key)[\w.-]*"
)
"""Narrower than `_SECRET_NAME`, for text in which `key` and `account` are ordinary words."""

_LOGIN: Final = re.compile(r"(?<=://)[^\s'\"?<>]*:[^\s'\"?<>]*@")
"""User and password; if the path holds an `@`, the part before it is removed too."""

_QUERY: Final = re.compile(r"\?[^\s'\"?<>=]*=[^\s'\"<>]*")
_SIGNATURE: Final = re.compile(rf"(?i){_NAMES_IN_TEXT}=|[?&;](?:sig|key|auth)=|[?&;]x-(?:amz|goog)-")

_IN_TEXT: Final = (
    (_LOGIN, ""),
    (_QUERY, "?***"),
    (re.compile(r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(\s*[:=]\s*)[^\s'\"][^\n'\"]*"), r"\1\2***"),
    (re.compile(rf"(?i)(<{_NAMES_IN_TEXT}>|<\w*{_NAMES_IN_TEXT}>)[^<]*"), r"\1***"),
    (
        re.compile(
            rf"(?i)({_NAMES_IN_TEXT})(['\"]?\s*[:=]\s*|['\"]\s*,\s*)"
            r"(?:b?'(?:\\.|[^'\\])*'|b?\"(?:\\.|[^\"\\])*\"|[^\s,;&'\"<>)}\]]+)"
        ),
        r"\1\2***",
    ),
)

_SHORTEST_SECRET: Final = 8
"""Minimum length of values that are removed everywhere in a text; shorter ones may be ordinary words."""

_secrets: Final[set[str]] = set()

_KEEPS_QUERY: Final = frozenset(
    "s3 s3a gs gcs oss oci ocilake tos tosfs hf dbfs lakefs box dropbox gdrive "
    "file local memory hdfs arrow_hdfs smb ssh zip tar libarchive".split()
)
"""Schemes of buckets and file systems, where `?` and `#` are legal in keys, names and globs."""

_KEEPS_USER: Final = frozenset({"abfs", "abfss", "az"})
"""Schemes in which the part before `@` is the container."""

_CHAINED: Final = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::))")
"""Separator of chained URIs such as `simplecache::https://...`; does not match a `::` within a key or file name."""


def redact_uri(uri: str) -> str:
    """Return a URI without user, password, query and fragment; local paths stay unchanged.

    >>> redact_uri("https://me:pw@host/a.mp4?X-Amz-Signature=abc")
    'https://host/a.mp4'
    """
    if "://" not in uri:
        return uri
    return "::".join(_redact_link(link) for link in _CHAINED.split(uri.lstrip()))


def has_query(uri: str) -> bool:
    """Return whether a `?` in this URI begins a query, which `redact_uri` leaves out."""
    return "://" in uri and any(_scheme(link) not in _KEEPS_QUERY for link in _CHAINED.split(uri) if "://" in link)


def readable_name(text: str) -> str:
    r"""Return a URI or name in a form that can be stored: non-UTF-8 bytes of a file name are written as `\xe9`.

    Python represents such a byte as a lone surrogate, which cannot be encoded for files, tables or hashes.
    """
    return re.sub("[\ud800-\udfff]", _escaped, text)


def redact_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return storage options with everything below a key that may name a secret replaced by `***`."""
    return {key: _redact_value(value, secret=_names_secret(key)) for key, value in options.items()}


def redact_text(text: str) -> str:
    """Return a library's message or a traceback without anything that may be a secret.

    >>> redact_text("GET https://me:pw@host/a.mp4?X-Amz-Signature=abc with {'X-Amz-Security-Token': b'abc'}")
    "GET https://host/a.mp4?*** with {'X-Amz-Security-Token': ***}"
    """
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    for pattern, instead in _IN_TEXT:
        text = pattern.sub(instead, text)
    return text


def redact_links(text: str) -> str:
    """Return user data with logins and signing queries removed from its links; `?v=abc` stays.

    >>> redact_links("https://host/watch?v=abc"), redact_links("https://me:pw@host/a.mp4?X-Amz-Signature=abc")
    ('https://host/watch?v=abc', 'https://host/a.mp4?***')
    """
    return _QUERY.sub(lambda found: "?***" if _SIGNATURE.search(found[0]) else found[0], _LOGIN.sub("", text))


def remember_secrets(options: dict[str, Any]) -> None:
    """Remove the secrets in storage options, or in the environment, from all messages logged from now on."""
    _secrets.update(value for value in _secret_values(options) if len(value) >= _SHORTEST_SECRET)


def redact_logs() -> None:
    """Remove secrets from everything that this process logs, from any library and handler, and from tracebacks."""
    remember_secrets({name: value for name, value in os.environ.items() if not os.path.exists(value)})
    logging.setLogRecordFactory(_RedactedRecord)
    sys.excepthook = _print_redacted
    threading.excepthook = _print_redacted_of_thread


class _RedactedRecord(logging.LogRecord):
    """A record whose text holds no secret; all handlers, including those of libraries, take the text from it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if isinstance(self.exc_info, tuple) and self.exc_info[0] is not None:
            self.exc_text = redact_text("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))
        if self.stack_info:
            self.stack_info = redact_text(self.stack_info)

    def getMessage(self) -> str:
        """Return the message with its arguments, without secrets."""
        return redact_text(super().getMessage())


def _print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact_text("".join(traceback.format_exception(kind, error, trace))))


def _print_redacted_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _print_redacted(args.exc_type, args.exc_value, args.exc_traceback)


def _secret_values(value: Any, *, secret: bool = False) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _secret_values(inner, secret=secret or _names_secret(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secret_values(inner, secret=secret)
    elif isinstance(value, str) and secret:
        yield value


def _redact_link(link: str) -> str:
    scheme, separator, rest = link.partition("://")
    if not separator:
        return link
    if _scheme(link) not in _KEEPS_QUERY:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    head, slash, tail = rest.partition("/")
    if _scheme(link) not in _KEEPS_USER:
        head = head.rsplit("@", 1)[-1]
    return f"{scheme}://{head}{slash}{tail}"


def _scheme(link: str) -> str:
    return link.partition("://")[0].strip().lower()


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _names_secret(key: object) -> bool:
    return bool(_SECRET_NAME.search(str(key))) and key not in _NOT_SECRET


def _redact_value(value: Any, *, secret: bool) -> Any:
    if isinstance(value, dict):
        return {key: _redact_value(inner, secret=secret or _names_secret(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == 2 and isinstance(value[0], str) and _names_secret(value[0]):  # an HTTP header as a pair
            return [value[0], _redact_value(value[1], secret=True)]
        return [_redact_value(inner, secret=secret) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if secret or (isinstance(value, str) and _holds_secret(value)):
        return "***"
    return redact_uri(value) if isinstance(value, str) else value


def _holds_secret(text: str) -> bool:
    """Return whether a text is a header or a list of settings with a secret: `Cookie: ...`, `...;AccountKey=...`."""
    if "://" in text:  # a host and port look like a name and value
        return False
    return bool(_SECRET_TEXT.match(text)) or any(_names_secret(match[1]) for match in _NAMED_TEXT.finditer(text))
