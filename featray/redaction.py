"""Ground. What may be printed, logged and stored of URIs, names and storage options.

Whatever is not known to be harmless is left out: a query is kept only where `?` cannot begin one. What
`redact_uri` makes of a URI names its video (`identity.video_id`), so it must not change for URIs without secrets.
"""

from __future__ import annotations

import re
from typing import Any, Final

_SECRET_NAME: Final = re.compile(
    r"secret|token|passw|passphrase|pwd|credential|key|sas|signature|auth|account|connection|cookie|bearer|jwt",
    re.IGNORECASE,
)
_NOT_SECRET: Final = {"key_type", "check_keys"}

_SECRET_TEXT: Final = re.compile(r"\s*(?:basic|bearer)\s", re.IGNORECASE)
_NAMED_TEXT: Final = re.compile(r"([\w-]+)\s*[:=]")

_KEEPS_QUERY: Final = frozenset(
    "s3 s3a gs gcs oss oci ocilake tos tosfs hf dbfs lakefs box dropbox gdrive "
    "file local memory hdfs arrow_hdfs smb ssh zip tar libarchive".split()
)
"""Schemes of buckets and file systems, where `?` and `#` are legal in keys, names and globs."""

_KEEPS_USER: Final = frozenset({"abfs", "abfss", "az"})
"""Here what stands before `@` is the container."""

_CHAINED: Final = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::))")
"""Between the links of `simplecache::https://...`; a `::` in a key or a file's name is none."""


def redact_uri(uri: str) -> str:
    """A URI without user, password, query and fragment; local paths stay as they are.

    >>> redact_uri("https://me:pw@host/a.mp4?X-Amz-Signature=abc")
    'https://host/a.mp4'
    """
    if "://" not in uri:
        return uri
    return "::".join(_redact_link(link) for link in _CHAINED.split(uri.lstrip()))


def has_query(uri: str) -> bool:
    """Whether a `?` in this URI begins a query, which `redact_uri` leaves out."""
    return "://" in uri and any(_scheme(link) not in _KEEPS_QUERY for link in _CHAINED.split(uri) if "://" in link)


def readable_name(text: str) -> str:
    r"""A URI or name as it can be stored: bytes of a file's name that are no UTF-8 are written as `\xe9`.

    Python keeps such a byte as half of a surrogate pair, which no file, table or hash takes.
    """
    return re.sub("[\ud800-\udfff]", _escaped, text)


def redact_options(options: dict[str, Any]) -> dict[str, Any]:
    """Storage options with everything below a key that may name a secret replaced by `***`."""
    return {key: _redact_value(value, secret=_names_secret(key)) for key, value in options.items()}


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
        if len(value) == 2 and isinstance(value[0], str) and _names_secret(value[0]):  # a header as a pair
            return [value[0], _redact_value(value[1], secret=True)]
        return [_redact_value(inner, secret=secret) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if secret or (isinstance(value, str) and _holds_secret(value)):
        return "***"
    return redact_uri(value) if isinstance(value, str) else value


def _holds_secret(text: str) -> bool:
    """Whether a text is a header or a list of settings with a secret: `Cookie: ...`, `...;AccountKey=...`."""
    if "://" in text:  # its port follows a name as well
        return False
    return bool(_SECRET_TEXT.match(text)) or any(_names_secret(match[1]) for match in _NAMED_TEXT.finditer(text))
