"""The first line of every module names its room of the package; `make lint` checks imports between rooms."""

from pathlib import Path

import pytest

import featray

PACKAGE = Path(featray.__file__).parent
ROOMS = {"cli": "Command line"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_room_it_is_in(path):
    place = path.relative_to(PACKAGE).parts
    room = ROOMS.get(place[0], place[0].capitalize()) if len(place) == 2 else "Ground"
    assert path.read_text().startswith(f'"""{room}. ')
