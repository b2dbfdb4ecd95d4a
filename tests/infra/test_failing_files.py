"""Every command that writes to an output, on a file system that fails at one of its operations, once or from then on.

The command ends with one line that names what failed; repeated, it gives the tables of a calm one; nothing is lost.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featray.cli import main
from featray.config_derive import DeriveConfig
from featray.findings.derive import Derivation
from featray.persons.settings import PersonsSettings
from featray.tables.layout import open_output
from featray.upkeep.derive import derive_partition
from featray.upkeep.persons import find_persons
from featray.upkeep.verify import verify
from tests.fixtures.crowd import Crowd, video_of
from tests.fixtures.outputs import tables_of
from tests.infra.failing_files import FailingFiles, Order

pytestmark = [pytest.mark.infra("fusermount3"), pytest.mark.timeout(1200)]

POINTS = 15
"""Number of tried points for each command: an operation that fails, with an error, once or lastingly. There are a
thousand to three thousand of them."""

UNCOMMITTED = {"no commit names it: its rows are not published"}
"""What `verify` says of a file whose commit failed; the next run replaces it."""

ERRORS = {
    "write": (errno.ENOSPC, errno.EIO, errno.EROFS),
    "close": (errno.EDQUOT, errno.EIO),
    "read": (errno.EIO, errno.EACCES, errno.ESTALE),
}


@pytest.fixture(scope="module")
def crowd(tmp_path_factory) -> Path:
    """Return an output with persons, made in two runs, of which a track was split off, and its derived rows."""
    made = Crowd(tmp_path_factory.mktemp("crowd") / "out")
    made.publish({f"{i}.mp4": [i % 2, 2, (3, 4 + i % 2)] for i in range(3)})
    made.publish({"3.mp4": [1, 2]})
    derive_partition(made.partition, Derivation(DeriveConfig()))
    find_persons(made.partition, PersonsSettings())
    root = Path(made.output.root.path)
    assert CliRunner().invoke(main, ["persons", str(root), "--split", "0.mp4:1"]).exit_code == 0
    return root


def problems(root: Path) -> set[str]:
    """Return what `verify` finds, without the places. The values of a crowd are made up, so that some are odd."""
    return {one.text for one in verify(open_output(str(root))).problems}


def featray(*words: object) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), (words, repr(done.exception))
    return done


COMMANDS = {
    "erase": ["erase", "OUT", "--video", video_of("0.mp4")],
    "erase a track": ["erase", "OUT", "--video", video_of("0.mp4"), "--track", "0"],
    "compact": ["compact", "OUT"],
    "derive": ["derive", "OUT", "--set", "derive.gap_s=0.7"],
    "persons": ["persons", "OUT", "--threshold", "0.9"],
    "split": ["persons", "OUT", "--split", "1.mp4:1"],
    "undo": ["persons", "OUT", "--undo"],
}


@pytest.fixture
def files(tmp_path):
    with FailingFiles(tmp_path) as made:
        yield made


def points_of(files: FailingFiles, begin: Callable[[Order], Result]) -> list[tuple[str, int, int, bool]]:
    """Return every operation of a calm command at which files can fail, with each error, once and lastingly."""
    points = []
    for kind, errors in ERRORS.items():
        calm = begin(Order(kind))
        assert calm.exit_code == 0, calm.output
        points += [(kind, at, error, last) for at in range(files.counted) for error in errors for last in (False, True)]
    return points


def hurt(
    files: FailingFiles, begin: Callable[[Order], Result], point: tuple[str, int, int, bool]
) -> tuple[Result, list[str]]:
    """Run a command whose files fail at a point, check that one line tells it, and return the failed operations."""
    done = begin(Order(*point))
    failed = files.failed
    files.order(Order())
    told = [line for line in done.stderr.splitlines() if line.startswith("featray: ")]
    if done.exit_code:
        assert failed and len(told) == 1 and str(files.place / "out") in told[0], (point, failed[:1], done.output)
    return done, failed


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_files_that_fail(name, crowd, files, report):
    out, real = files.place / "out", files.folder / "out"
    words = [out if word == "OUT" else word for word in COMMANDS[name]]

    def begin(order: Order) -> Result:
        files.order(Order())
        shutil.rmtree(real, ignore_errors=True)
        shutil.copytree(crowd, real)
        files.order(order)
        return featray(*words)

    points = points_of(files, begin)
    expected = tables_of(real)
    odd = problems(crowd) | problems(real)
    assert len(points) > 300
    tried = random.Random(name).sample(points, POINTS)
    for point in tried:
        done, failed = hurt(files, begin, point)
        left = [text for text in problems(real) - odd if "erasure was interrupted; finish it" not in text]
        assert left == [], (point, failed[:1], left)
        again = featray(*words) if done.exit_code else done
        assert again.exit_code == 0, (point, failed[:1], again.output)
        assert tables_of(real) == expected, (point, failed[:1], done.output, again.output)
        assert problems(real) <= odd, (point, failed[:1])
    report(f"{name}: {len(tried)} of {len(points)} points at which files fail")


def test_a_run_on_files_that_fail(files, clips, small_network, report):
    """The local executor. The order of its operations differs, so that a point is not always the same operation."""
    out, real = files.place / "out", files.folder / "out"
    many = files.folder.parent / "clips"
    many.mkdir()
    for number in range(3):
        shutil.copy(clips / "face.mp4", many / f"{number}.mp4")
    settings = [f"model.checkpoint={small_network}", "decode.sample={every: 60}", "cluster.decode_workers=1"]
    words = ["run", many, "--out", out, "--executor", "local", *(w for one in settings for w in ("--set", one))]

    def begin(order: Order) -> Result:
        files.order(Order())
        shutil.rmtree(real, ignore_errors=True)
        files.order(order)
        return featray(*words)

    points = points_of(files, begin)
    expected = tables_of(real)
    tried = random.Random("run").sample(points, POINTS)
    for point in tried:
        done, failed = hurt(files, begin, point)
        assert done.exit_code in (0, 1), (point, failed[:1], done.output)
        if (real / "_featray/output.json").exists():
            assert problems(real) <= UNCOMMITTED, (point, failed[:1])
        again = featray(*words) if done.exit_code else done
        assert again.exit_code == 0, (point, failed[:1], again.output)
        assert tables_of(real) == expected and problems(real) == set(), (point, failed[:1], done.output, again.output)
    report(f"run: {len(tried)} of {len(points)} points at which files fail")
