"""Video. The registry of decoders; each is imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable

from featray.video.decode import Decoder, decode_pyav


def open_decoder(backend: str) -> Decoder:
    """Return the decoder of that name.

    Raises:
        ConfigError: its package is not installed.
    """
    return DECODERS[backend]()


def _load_decord() -> Decoder:
    from featray.video.decord_backend import load_decord

    return load_decord()


DECODERS: dict[str, Callable[[], Decoder]] = {"pyav": lambda: decode_pyav, "decord": _load_decord}
