"""What all tests share: no phone-home, caches of their own, the bundled clips."""

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of the clips that ship with the package: face.mp4 (472 frames), no_face.mp4 (95)."""
    return Path(str(files("featray") / "demo_clips"))


@pytest.fixture(scope="session")
def face_clip(clips: Path) -> Path:
    return clips / "face.mp4"


_REPORT = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line with measured figures, to be printed at the end of the run."""
    return request.config.stash.setdefault(_REPORT, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes: what it measured goes to the first
        session.config.workeroutput["measured"] = session.config.stash.get(_REPORT, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash.setdefault(_REPORT, []).extend(getattr(node, "workeroutput", {}).get("measured", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_REPORT, []):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
