"""Store. The headers and passwords of storage options go to the host of a link, and not on to where it redirects.

aiohttp itself keeps back the header Authorization alone, and not if it comes from `auth`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class _OwnHost:
    """A middleware of aiohttp, which it calls for each request of a chain of redirects.

    Attributes:
        origin: scheme, host and port that get everything.
        names: of the headers that no other gets.
    """

    origin: str
    names: tuple[str, ...]

    async def __call__(self, request: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:
        if str(request.url.origin()) != self.origin:
            for name in self.names:
                request.headers.popall(name, None)
        return await send(request)


def with_own_host(link: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options to open a link with, so that other hosts get none of their headers."""
    if not options:
        return options
    client = dict(options.get("client_kwargs") or {})
    headers = {**(client.get("headers") or {}), **(options.get("headers") or {})}
    names = ("Authorization", "Cookie", *sorted(headers))
    before = client.get("middlewares", ())
    return {**options, "client_kwargs": {**client, "middlewares": (*before, _OwnHost(_origin(link), names))}}


def _origin(link: str) -> str:
    from yarl import URL  # with aiohttp, which reads the same link

    parts = urlsplit(link)
    return str(URL(f"{parts.scheme}://{parts.netloc}").origin())
