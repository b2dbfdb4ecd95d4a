"""Ground. A config as text: read strict YAML, and describe validation errors in words.

YAML allows repeated keys, and lets a few lines grow without bound through aliases. Both are refused: the first hides a
setting, the second hangs the parser. Numbers of thousands of digits and deep nesting are refused too: they parse, but
Python cannot print the one, and libraries cannot write the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from featray.errors import ConfigError, shown

_MOST_VALUES: Final = 100_000
"""Limit for a YAML text with its aliases expanded; a config that lists one URI per line has fewer."""


MOST_CHARS: Final = 8_000_000
"""Limit for a config's text, in a file and in `runs.config`: one that names 80,000 videos one by one."""

_MOST_DEPTH: Final = 64
_MOST_BITS: Final = 64

_MOST_PROBLEMS: Final = 20
"""Problems to tell of one config; a suggestion for each of thousands would take minutes."""

DATASET_NAME: Final = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
EVENT_NAME: Final = "^[A-Za-z][A-Za-z0-9_]{0,63}$"
SHA256: Final = "^[0-9a-f]{64}$"
_PATTERNS: Final = {
    DATASET_NAME: "letters, digits, `.`, `_` and `-`, at most 64, a letter or digit first",
    EVENT_NAME: "letters, digits and `_`, at most 64, a letter first",
    SHA256: "64 hexadecimal digits, 0 to 9 and a to f",
}
"""What the patterns of texts allow, in words."""

NOT_READ: Final = (
    yaml.YAMLError,
    RecursionError,
    ValueError,
    AttributeError,
    LookupError,
    TypeError,
    OverflowError,
)
"""What PyYAML raises for a text that is no YAML, and its own converters for values such as `!!int ''`."""


def check_plain(value: Any, depth: int = 0) -> None:
    """Refuse data that can be read, but not written again or printed.

    Raises:
        ValueError: it is nested too deeply, or holds a number of more than 64 bits; the message says which.
    """
    if depth > _MOST_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"a number of more than {_MOST_BITS} bits")
    children = [*value, *value.values()] if isinstance(value, dict) else value
    for child in children if isinstance(children, list | tuple | set) else ():
        check_plain(child, depth + 1)


def read_yaml(text: str) -> Any:
    """Return the plain data of a YAML text.

    Raises:
        ConfigError: invalid YAML, a repeated key, or aliases that grow. Values are not shown, they may be secret.
    """
    try:
        check_yaml(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {})
        if repeated := list(_repeated_keys(node, "", set())):
            raise ConfigError("; ".join(repeated))
        data = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed"
        tabs = mark and "\t" in "".join(text.splitlines()[mark.line : mark.line + 1])
        hint = "; indent with spaces, not with tabs" if tabs else ""
        raise ConfigError(f"not valid YAML{where}: {shown(str(problem))}{hint}") from None
    except RecursionError:
        raise ConfigError("not valid YAML: nested too deeply") from None
    except NOT_READ:
        raise ConfigError(
            "not valid YAML: a value looks like a date or a number but is not one; put it in quotes"
        ) from None
    try:
        check_plain(data)
    except ValueError as error:
        raise ConfigError(f"not a config: {error}") from None
    return data


def check_yaml(text: str, *, aliases: bool = True) -> None:
    """Refuse a YAML text with too many values, or nested too deeply, before it is parsed: that could take an hour.

    Args:
        text: the YAML text.
        aliases: whether it may hold aliases.

    Raises:
        yaml.YAMLError: the text is refused, or is no YAML.
    """
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_SCANNER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        problem = None
        if depth > _MOST_DEPTH:
            problem = "nested too deeply"
        elif count > 2 * _MOST_VALUES:  # each list or mapping has a second event, at its end
            problem = f"more than {_MOST_VALUES:,} values"
        elif isinstance(event, yaml.AliasEvent) and not aliases:
            problem = "aliases are not supported"
        if problem:
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_SCANNER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser, if PyYAML was built with it. It gives events only, since its nodes would overflow the stack."""


def _check_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count the values below a node with aliases expanded, visiting each node once."""
    key = id(node)
    if key not in sizes:
        sizes[key] = _MOST_VALUES + 1  # an alias inside its own anchor exceeds the limit
        sizes[key] = 1 + sum(_check_size(child, sizes) for child in _children(node))
    if sizes[key] > _MOST_VALUES:
        raise ConfigError(
            f"line {node.start_mark.line + 1} grows beyond {_MOST_VALUES:,} values through its aliases; write them out"
        )
    return sizes[key]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _repeated_keys(node: yaml.Node, path: str, visited: set[int]) -> Iterator[str]:
    """Yield a phrase for each key that is repeated within a mapping; keys merged by `<<` do not count."""
    if id(node) in visited:
        return
    visited.add(id(node))
    if not isinstance(node, yaml.MappingNode):
        for child in _children(node):
            yield from _repeated_keys(child, path, visited)
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        inside = f"{path}.{name}" if path else name
        line = key.start_mark.line + 1
        if name and (key.tag, name) in lines:
            yield f"{shown(inside)}: is given twice, at line {lines[key.tag, name]} and at line {line}; keep one"
        lines.setdefault((key.tag, name), line)
        yield from _repeated_keys(value, inside, visited)


ALTERNATIVES: Final = {
    "decode.sample": "all, {every: n} with n at least 1, or {fps: x} with x over 0 and up to 1000",
    "model.conventions": (
        "auto, py-feat-2.1.2, py-feat-2.0, or {of: one of the two, negate: [pose_pitch, pose_roll, pose_yaw, gaze_yaw, "
        "gaze_pitch]}"
    ),
    "cluster.cpus": "auto or a number over 0",
    "cluster.gpus": "auto or a number of at least 0",
    "cluster.decode_workers": "auto or a whole number of at least 1",
    "cluster.infer_workers": "auto or a whole number of at least 1",
    "cluster.gpus_per_worker": "auto or a number of at least 0, such as 0.5",
    "cluster.decode_cpus": "auto or a number over 0",
    "cluster.infer_cpus": "auto or a number over 0",
}
"""Keys that accept several types of values; pydantic's own message would name only one of them."""

MAY_HOLD_SECRETS: Final = (
    "input.uris",
    "input.manifest_places",
    "input.storage_options",
    "output.uri",
    "output.storage_options",
    "detect.boxes",
)


def describe_problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one line per problem with data for `model`, each with the path of its key."""
    found: dict[str, str] = {}
    problems = error.errors(include_url=False)
    for i, problem in enumerate(problems):
        if len(found) >= _MOST_PROBLEMS:
            return [*found.values(), f"and {len(problems) - i:,} more"]
        path = shown(".".join(str(part) for part in problem["loc"]))
        one_of = next((key for key in ALTERNATIVES if path == key or path.startswith(f"{key}.")), path)
        found.setdefault(one_of or problem["msg"], _in_words(one_of, dict(problem), model))
    return list(found.values())


def _in_words(path: str, problem: dict[str, Any], model: type[BaseModel]) -> str:
    got, kind = problem["input"], problem["type"]
    told = isinstance(got, str | int | float) and not path.startswith(MAY_HOLD_SECRETS)
    value = f" (got {shown(repr(got))})" if told else ""
    if path in ALTERNATIVES:
        return f"{path}: allowed is {ALTERNATIVES[path]}{value}"
    if kind == "extra_forbidden":
        beside = _keys_of(_section(problem["loc"][:-1], model))
        return f"{path}: unknown key{_did_you_mean(problem['loc'], model)}; allowed here: {', '.join(beside)}"
    if kind == "missing":
        return f"{path}: is required and has no default"
    if kind == "model_type":
        return f"{path}: is a section of keys, not a value"
    if kind == "list_type":
        return f"{path}: must be a list, also of one; write it in brackets: [...]{value}"
    if kind == "string_pattern_mismatch":
        return f"{path}: must be {_PATTERNS[problem['ctx']['pattern']]}{value}"
    message = problem["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}"
    return f"{path}: {message}{value}" if path else message


def _did_you_mean(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Suggest the most similar key of the same section, else of any section."""
    written = str(loc[-1])
    beside = _keys_of(_section(loc[:-1], model))
    names = {name: ".".join(map(str, (*loc[:-1], name))) for name in beside}
    for section in _keys_of(model) if not get_close_matches(written, names, 1) else ():
        names |= {name: f"{section}.{name}" for name in _keys_of(_section((section,), model))}
    close = get_close_matches(written, names, 1)
    return f", did you mean {names[close[0]]}?" if close else ""


def _section(loc: tuple[int | str, ...], model: type[BaseModel]) -> Any:
    found: Any = model
    for part in loc:
        if isinstance(part, str) and part in _keys_of(found):
            found = found.model_fields[part].annotation
    return found


def _keys_of(section: Any) -> list[str]:
    return list(getattr(section, "model_fields", {}))
