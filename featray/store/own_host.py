"""Store. Send the headers and passwords of storage options only to a link's own host, not to hosts it redirects to.

aiohttp itself drops only the Authorization header on a redirect, and not if it comes from `auth`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class _OwnHost:
    """An aiohttp middleware, called for each request of a chain of redirects.

    Attributes:
        origin: scheme, host and port that receive all headers.
        names: names of the headers that other origins do not receive.
    """

    origin: str
    names: tuple[str, ...]

    async def __call__(self, request: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:
        if str(request.url.origin()) != self.origin:
            for name in self.names:
                request.headers.popall(name, None)
        return await send(request)


def with_own_host(link: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return options for opening a link that withhold their headers from other hosts."""
    if not options:
        return options
    client = dict(options.get("client_kwargs") or {})
    headers = {**(client.get("headers") or {}), **(options.get("headers") or {})}
    names = ("Authorization", "Cookie", *sorted(headers))
    before = client.get("middlewares", ())
    return {**options, "client_kwargs": {**client, "middlewares": (*before, _OwnHost(_origin(link), names))}}


def _origin(link: str) -> str:
    from yarl import URL  # installed with aiohttp, which parses the same link

    parts = urlsplit(link)
    return str(URL(f"{parts.scheme}://{parts.netloc}").origin())
