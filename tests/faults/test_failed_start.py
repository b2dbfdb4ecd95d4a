"""Workers that cannot start: the run ends soon, with the reason in one line."""

import os
import shutil
import tempfile
import time

import pytest
import ray

from featray.errors import ConfigError, FeatrayError, RunError
from featray.run.runner import run
from tests.fixtures.runs import make_config, silent

pytestmark = pytest.mark.ray

HOOK = '''
"""Makes opening the engine in Ray's workers abort or raise, as a file says."""
import os, sys
from importlib.machinery import PathFinder

def fail(*args, **settings):
    place = os.environ["FEATRAY_TEST_FAULT"]
    with open(place) as file:
        fault = file.read()
    with open(place + ".starts", "a") as file:
        file.write("start\\n")
    if fault == "abort":
        os.abort()
    raise ImportError("libcudart.so.12: cannot open shared object file: No such file or directory")

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name != "featray.model.engines":
            return None
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.open_engine = fail

        spec.loader.exec_module = exec_module
        return spec

if any("default_worker.py" in word for word in sys.orig_argv):
    sys.meta_path.insert(0, Hook())
'''


@pytest.fixture(scope="module")
def fault(no_ray, kept_cache, tmp_path_factory):
    """A Ray whose inference workers meet what is written into this file."""
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(HOOK)
    place = folder / "fault"
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATRAY_CACHE", str(kept_cache))
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.setenv("FEATRAY_TEST_FAULT", str(place))
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        short = tempfile.mkdtemp(prefix="fr-")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=short)
        yield place
        ray.shutdown()
        shutil.rmtree(short, ignore_errors=True)


def starts(place):
    return len((place.parent / "fault.starts").read_text().splitlines())


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
    (fault.parent / "fault.starts").write_text("")
    began = time.monotonic()
    with pytest.raises(error) as raised:
        run(make_config([face_clip], tmp_path / "out", cluster={"infer_workers": 1}), silent())
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert starts(fault) == {"raise": 1, "abort": 3}[kind]
    report(f"inference workers that {kind} as they start: the run ended after {time.monotonic() - began:.0f} s")


def test_workers_that_fit_nowhere_end_the_run_before_it_starts(fault, face_clip, tmp_path):
    (fault.parent / "fault.starts").write_text("")
    with pytest.raises(ConfigError, match=r"cluster\.infer_workers: .* find no place"):
        run(make_config([face_clip], tmp_path / "out", cluster={"memory_gib": 4000}), silent())
    assert starts(fault) == 0
