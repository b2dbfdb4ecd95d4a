"""A local Ray for a test module, and the pieces that runs are made of."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from rich.console import Console

from featray.config import Config, parse_config
from featray.run.progress import Progress


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Checkpoints and compiled engines of the tests, shared by all modules."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cluster(cache) -> Iterator[None]:
    os.environ["FEATRAY_CACHE"] = str(cache)
    # Ray's socket paths must be short, pytest's folders are not.
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    folder = tempfile.mkdtemp(prefix="fr-")
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=2, _temp_dir=folder, _system_config={"metrics_report_interval_ms": 1000}, **quiet)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def make_config(uris, out, **sections) -> Config:
    """Few frames and a small network: where the network itself matters, a test asks for `model={}`."""
    data = {
        "dataset": "test",
        "input": {"uris": [str(uri) for uri in uris]},
        "output": {"uri": str(out)},
        "decode": {"sample": {"every": 24}},
        "model": {"checkpoint": "synthetic:atto"},
        **sections,
    }
    return parse_config(data)


def silent() -> Progress:
    return Progress(Console(file=io.StringIO()), quiet=True)
