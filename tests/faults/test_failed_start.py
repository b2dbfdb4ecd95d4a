"""If workers cannot start, the run ends soon, with the reason in one line."""

import time

import pytest

from featray.errors import ConfigError, FeatrayError, RunError
from featray.run.runner import run
from tests.fixtures.runs import make_config, silent


@pytest.fixture
def fault(cluster, start_fault):
    """Yield a file whose content is the fault of inference workers."""
    starts(start_fault).write_text("")
    yield start_fault
    start_fault.unlink(missing_ok=True)


def starts(fault):
    """Return the file with a line for each start."""
    return fault.with_suffix(".starts")


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        pytest.param(
            *("raise", FeatrayError, "libcudart.so.12: cannot open shared object file"), marks=pytest.mark.long
        ),
        ("abort", RunError, "an inference worker died 3 times in a row while starting"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_run(fault, face_clip, tmp_path, report, kind, error, says):
    fault.write_text(kind)
    began = time.monotonic()
    with pytest.raises(error) as raised:
        run(make_config([face_clip], tmp_path / "out"), silent())
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert len(starts(fault).read_text().splitlines()) == {"raise": 1, "abort": 3}[kind]
    report(f"inference workers that {kind} as they start: the run ended after {time.monotonic() - began:.0f} s")


def test_workers_that_fit_nowhere_end_the_run_before_it_starts(fault, face_clip, tmp_path):
    with pytest.raises(ConfigError, match=r"cluster\.infer_workers: .* find no place"):
        run(make_config([face_clip], tmp_path / "out", cluster={"memory_gib": 4000}), silent())
    assert starts(fault).read_text() == ""
