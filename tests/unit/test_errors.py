import ast
import pickle
import re
from itertools import pairwise
from pathlib import Path

import pytest

from featray import errors
from featray.errors import (
    ERROR_MEANINGS,
    ConfigError,
    ErrorCode,
    FeatrayError,
    LicenseError,
    ModelError,
    VideoError,
    counted,
    in_bytes,
)


def subclasses(cls):
    return {cls, *(found for sub in cls.__subclasses__() for found in subclasses(sub))}


@pytest.mark.parametrize("cls", sorted(subclasses(FeatrayError), key=lambda c: c.__name__))
def test_every_error_survives_pickling(cls):
    extra = {"code": ErrorCode.TIMEOUT} if cls is VideoError else {}
    error = pickle.loads(pickle.dumps(cls("one line", unit=3, **extra)))
    assert type(error) is cls
    assert str(error) == "one line"
    assert error.details["unit"] == 3
    if extra:
        assert error.code is ErrorCode.TIMEOUT


def test_the_docstring_shows_the_whole_tree():
    for cls in subclasses(FeatrayError):
        if cls.__module__ == errors.__name__:
            assert cls.__name__ in (errors.__doc__ or "")


def test_exit_codes():
    assert (ConfigError("x").exit_code, LicenseError("x").exit_code, ModelError("x").exit_code) == (2, 2, 1)


def test_every_code_has_a_meaning():
    assert set(ERROR_MEANINGS) == set(ErrorCode)


def test_one_is_not_counted_in_the_plural():
    assert [counted(n, "video") for n in (0, 1, 2, 1234)] == ["0 videos", "1 video", "2 videos", "1,234 videos"]


_COUNTED = re.compile(
    r" (?:more )?(videos|faces|frames|rows|tracks|files|persons|units|shards|commits|labels|problems|pictures|attempts"
    r"|workers|nodes|CPUs|GPUs|thumbnails|entries|switches|events|embedders)\b(?!/)"
)


def test_what_messages_count_is_in_the_plural_only_where_it_is_more():
    """A number right before a plural noun comes from `counted`, unless it is a constant."""
    found = []
    for path in sorted(Path(errors.__file__).parent.rglob("*.py")):
        for text in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.JoinedStr)):
            for value, then in pairwise(text.values):
                if isinstance(value, ast.FormattedValue) and isinstance(then, ast.Constant):
                    number = ast.unparse(value.value)
                    is_number = (
                        value.conversion == -1 and not number.isupper() and not isinstance(value.value, ast.IfExp)
                    )
                    if is_number and _COUNTED.match(str(then.value)):
                        found.append(f"{path.name}:{text.lineno}: {number}{then.value}")
    assert found == []


def test_small_sizes_are_in_kb():
    assert [in_bytes(size) for size in (2_300, 99_900, 100_000, 2_300_000)] == ["2.3 kB", "99.9 kB", "0.1 MB", "2.3 MB"]
