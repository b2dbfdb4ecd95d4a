"""A second value of an option is refused where click would drop the first: a video would silently not be erased."""

import pytest
from click.testing import CliRunner

from featray.cli import main


@pytest.mark.parametrize(
    "words",
    [
        "erase OUT --video a.mp4 --video b.mp4",
        "erase OUT --video a.mp4 --track 0 --track 1",
        "erase OUT --person p-1 --person p-2",
        "erase OUT --video a.mp4 --release A --release B",
        "persons OUT --merge p-1 p-2 --merge p-3 p-4",
    ],
)
def test_an_option_that_is_given_twice_ends_the_command(words):
    command, option = words.split()[0], words.split()[-3 if "merge" in words else -2]

    result = CliRunner().invoke(main, words.split())

    assert result.exit_code == 2
    assert result.output == f"featray: {command}: {option} is given 2 times; run it once for each\n"
