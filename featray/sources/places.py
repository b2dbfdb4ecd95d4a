"""Sources. Decide which places a manifest may name, and where the config's storage options apply.

A manifest is untrusted, so its rows cannot open a local file that the config did not allow, cannot chain filesystems,
and cannot send credentials to a host that the config does not name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from featray.config import InputConfig
from featray.errors import StorageError
from featray.redaction import redact_uri
from featray.store.location import Location, locate, opened_as

_ALIASES: Final = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "local": "file"}
_PORTS: Final = {"http": ":80", "https": ":443"}

_ADDRESS_IN_OPTIONS: Final = frozenset({"file", "memory", "s3", "gs", "az", "hf"})
"""Kinds of storage whose server comes from the options or is always the same: a URI cannot choose another one."""

_HUB_TYPES: Final = frozenset({"datasets", "spaces", "models", "buckets"})


class Place(NamedTuple):
    """The place that a URI leads to.

    Attributes:
        scheme: one per kind of storage; aliases are resolved.
        host: host, bucket, or repository of the Hugging Face hub; empty for local files.
    """

    scheme: str
    host: str


@dataclass(frozen=True)
class SourceOptions:
    """Storage options for the sources of published rows, and the places for which the user gave them.

    Attributes:
        options: options for fsspec.
        places: input places of the user's own config; empty without one.
    """

    options: dict[str, Any] = field(default_factory=dict)
    places: tuple[str, ...] = ()

    def places_among(self, recorded: Iterable[str]) -> list[str]:
        """Return the places to which the options apply, given those in `runs.config`.

        An output may come from somebody else, so its config cannot name a host that receives the user's options.
        A container at `account`, as in `abfs://container@account`, is such a host.
        """
        harmless = [uri for uri in recorded if place_of(uri).scheme in _ADDRESS_IN_OPTIONS and "@" not in uri]
        return [*self.places, *harmless] or ["/"]

    def check_named(self, uri: str) -> None:
        """Check that a URI from an output chains no filesystems, unless the user's own config names the same chain.

        A chain such as `zip://a.mp4::/dev/zero` reads all of its last part, in this process, before there is a video.

        Raises:
            StorageError: it does.
        """
        chain = _chain(uri)
        if any(chain) and chain not in map(_chain, self.places):
            raise StorageError(
                f"{redact_uri(uri)}: chains filesystems (`::`), which is opened only if your own --config names it"
            )


def _chain(uri: str) -> tuple[str, str]:
    """Return the first protocol of a chain, and the filesystems after it; nothing if a URI is no chain."""
    head, separator, rest = uri.strip().partition("::")
    chained = separator and opened_as(uri.strip()) == uri.strip()
    return (head.partition("://")[0], rest) if chained else ("", "")


def place_of(uri: str) -> Place:
    """Return the place of a URI; for a chain, that of its last URI."""
    uri = redact_uri(opened_as(uri.strip()).rsplit("::", 1)[-1]) if "://" in uri else uri
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Place("file", "")
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    parts = 1 if scheme != "hf" else 3 if rest.partition("/")[0] in _HUB_TYPES else 2
    host = "/".join(rest.split("/")[:parts]).lower().removesuffix(_PORTS.get(scheme, "\0"))
    if scheme == "hf":
        host = host.partition("@")[0]  # any revision
    return Place(scheme, "" if scheme == "file" else host)


def locate_input(uri: str, config: InputConfig) -> tuple[Location, bool]:
    """Return the location of a video or container, and whether the storage options apply to it and are used.

    Raises:
        StorageError: as in `locate`.
    """
    return locate(uri, options_for(uri, config)), options_apply(uri, config)


def options_for(uri: str | None, config: InputConfig) -> dict[str, Any]:
    """Return the storage options to use for this place: those of the config, or none."""
    return config.storage_options if uri is not None and options_apply(uri, config) else {}


def options_apply(uri: str, config: InputConfig) -> bool:
    """Return whether `storage_options` apply to this place.

    They apply to the hosts and buckets that the config names. If they name the server themselves (`endpoint_url`), they
    apply to all its buckets.
    """
    place = place_of(uri)
    known = {place_of(named) for named in (*config.uris, *config.manifest_places)}
    if place in known:
        return True
    client = config.storage_options.get("client_kwargs")
    given = {**config.storage_options, **(client if isinstance(client, dict) else {})}
    return "endpoint_url" in given and place.scheme in {each.scheme for each in known}


def refusal(uri: str, manifest: str, config: InputConfig) -> str | None:
    """Return why a row of a manifest may not name this URI; None if it may.

    Args:
        uri: the URI in the row.
        manifest: URI of the manifest.
        config: the input section of the config.
    """
    own = place_of(manifest)
    if "://" not in uri:
        is_file = uri.startswith("/") and own.scheme != "file"
        return _not_allowed("file:///", config) if is_file and not _named(Place("file", ""), config) else None
    head = uri.partition("://")[0]
    if "::" in head or ("::" in uri and opened_as(uri) == uri):
        return "it chains filesystems (`::`), which is not allowed in a manifest"
    place = place_of(uri)
    if place.scheme == own.scheme or _named(place, config):
        return None
    schemes = {place_of(named).scheme for named in config.uris} - {"file"}
    return None if place.scheme in schemes else _not_allowed(f"{head.lower()}://{place.host}", config)


def _named(place: Place, config: InputConfig) -> bool:
    places = {place_of(named) for named in config.manifest_places}
    return place in places or Place(place.scheme, "") in places


def _not_allowed(place: str, config: InputConfig) -> str:
    return f"the config does not name {place}; if you trust it, add it to input.manifest_places"


def hint(uri: str, config: InputConfig) -> str:
    """Return a hint for the message about an unreadable place if the storage options were not used there."""
    if not config.storage_options or options_apply(uri, config):
        return ""
    scheme, host = place_of(uri)
    return f" (input.storage_options were not used: add {scheme}://{host} to input.manifest_places to use them there)"
