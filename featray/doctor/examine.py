"""Doctor. All checks in order. An exception during a check is reported as a result and does not end the examination."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from featray.config import Config
from featray.doctor import machine, software
from featray.doctor.check import Check, shortened
from featray.doctor.reach import reach, reach_config
from featray.errors import FeatrayError

_FIXES: Final = {
    "packages": "pip install --force-reinstall featray",
    "decoding": "pip install --force-reinstall av",
    "detecting": "pip install --force-reinstall openvino",
    "engines": "pip install --force-reinstall torch openvino",
}


def examine(
    uris: tuple[str, ...], storage_options: dict[str, Any], *, write: bool, ray: bool, config: Config | None = None
) -> Iterator[Check]:
    """Yield the result of every check as it finishes.

    Args:
        uris: places that must be reachable.
        storage_options: options for these places.
        write: whether to write a test object to them, or to the config's output.
        ray: whether to connect to Ray, or start it.
        config: a run's config, whose input and output must be reachable.
    """
    groups: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("machine", machine.machine),
        ("packages", software.packages),
        ("decoding", software.decoding),
        ("detecting", software.detecting),
        ("engines", software.engines),
        ("weights", software.weights),
    ]
    if ray:
        groups.append(("ray", machine.ray))
    for name, look in groups:
        try:
            yield from look()
        except (ImportError, OSError, RuntimeError, ValueError, FeatrayError) as error:
            found = shortened(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            yield Check(name, name, "missing", found, _FIXES.get(name, ""))
    for uri in uris:
        yield from reach(uri, storage_options, write=write)
    if config is not None:
        yield from reach_config(config, write=write)
