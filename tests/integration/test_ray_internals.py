"""Canaries for the workarounds in `ray_internals.py`: each fails when Ray no longer needs one; it can then be removed.

`rows_of` and `_Running` have none: they are about the driver's time and memory, which benchmarks measure.
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow as pa
import pytest
import ray
import ray.exceptions
from ray.data import ActorPoolStrategy
from ray.data._internal.execution.block_ref_counter import BlockRefCounter
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.interfaces.physical_operator import DataOpTask
from ray.data._internal.execution.metadata_fetcher import InlineMetadataFetcher
from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.data.block import BlockAccessor, BlockMetadataWithSchema
from ray.util.annotations import RayDeprecationWarning

from featray.graph.ray_internals import FetchAtOnce, configure_context, end_stream, usable_gpus


@ray.remote(num_returns="streaming", max_retries=0, num_cpus=0)
def rows(whole):
    """Yield `whole` rows with their metadata, as tasks of Ray Data do; die after one more row, before its metadata."""
    block = pa.table({"task": ["x"]})
    for _ in range(whole):
        yield block
        yield pickle.dumps(
            BlockMetadataWithSchema.from_metadata(BlockAccessor.for_block(block).get_metadata(), block.schema)
        )
    yield block
    time.sleep(1)  # so that the row arrives
    os._exit(1)


def looks(fetcher, whole, count=200):
    """Poll a task `count` times; return the number of its rows, the errors that it raised, and whether it finished."""
    given, errors = [], []
    task = DataOpTask(0, rows.remote(whole), BlockRefCounter(), "reader", output_ready_callback=given.append)
    for _ in range(count):
        try:
            task.on_data_ready(None, fetcher)
        except ray.exceptions.RayError as error:
            errors.append(error)
        if task.has_finished:
            break
        time.sleep(0.1)
    return len(given), errors, task.has_finished


@pytest.mark.parametrize("whole", [0, 2])
def test_a_row_that_nothing_is_known_of_is_dropped_and_its_task_has_failed(cluster, whole):
    given, errors, is_finished = looks(FetchAtOnce(), whole)
    assert given == whole and is_finished
    (error,) = errors
    assert isinstance(error, ray.exceptions.WorkerCrashedError)


def test_ray_data_itself_would_ask_for_ever(cluster):
    """When this fails, FetchAtOnce is no longer needed."""
    _, errors, is_finished = looks(InlineMetadataFetcher(), 0)
    assert len(errors) > 10 and not is_finished


def test_an_actor_that_dies_as_it_starts_is_started_again_without_end(cluster, tmp_path):
    """When this fails, `watch_start` is no longer needed."""
    counted = tmp_path / "starts"

    class Dies:
        def __init__(self):
            with counted.open("a") as file:
                file.write("x")
            os._exit(1)

        def __call__(self, batch):
            return batch

    configure_context()
    dataset = ray.data.range(1).map_batches(Dies, compute=ActorPoolStrategy(size=1), max_restarts=-1)
    thread = threading.Thread(target=_take, args=(dataset,), daemon=True)
    thread.start()
    for _ in range(300):
        if counted.exists() and len(counted.read_text()) > 4:
            break
        time.sleep(0.1)
    assert thread.is_alive(), "nothing was raised after five deaths"
    assert end_stream()
    thread.join(30)


def _take(dataset):
    with contextlib.suppress(Exception):
        dataset.take_all()


def test_map_batches_warns_of_settings_that_it_still_takes(cluster):
    """When this fails, `building` need not hide a warning, and `_FAULTS` must be passed in another way."""
    with pytest.warns(RayDeprecationWarning, match=r"ray_remote_args. is deprecated and will be removed in Ray 2\.64"):
        ray.data.range(1).map_batches(Keeps, compute=ActorPoolStrategy(size=1), max_restarts=-1, max_task_retries=2)


class Keeps:
    def __call__(self, batch):
        return batch


def test_statistics_of_every_block_are_kept_until_the_end(cluster):
    """When this fails, `_Running` need not clear them."""
    context = ray.data.DataContext.get_current().copy()
    context.custom_execution_callback_classes = [Watcher]
    with ray.data.DataContext.current(context):
        ray.data.range(20, override_num_blocks=20).map_batches(Keeps, compute=ActorPoolStrategy(size=1)).take_all()
    assert Watcher.most >= 15


class Watcher(ExecutionCallback):
    most = 0

    def on_execution_step(self, executor):
        for operator in executor._topology:
            if isinstance(operator, MapOperator):
                Watcher.most = max(Watcher.most, len(operator._output_blocks_stats))


def test_no_machine_without_a_gpu_has_one():
    """Ray has no public function that counts them; this private one must stay at its place."""
    assert usable_gpus() == 0.0


_INIT = """
import os, signal
os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
import ray
signal.signal(signal.SIGTERM, print)
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, num_gpus=0)
print("handler kept" if signal.getsignal(signal.SIGTERM) is print else "handler replaced")
"""


@pytest.mark.ray
def test_starting_ray_takes_the_handler_of_sigterm_and_talks(tmp_path):
    """When this fails, `stop.handler_kept` or the silencing in `connection.connect` is no longer needed."""
    done = subprocess.run([sys.executable, "-c", _INIT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "handler replaced" in done.stdout
    assert "Set ray log level" in done.stderr


STARTS = """
import json, sys
import ray
import psutil  # which Ray brings along
from featray.graph import connection

if sys.argv[1] == "rays own way":
    ray.init(address="local", include_dashboard=False, num_cpus=1, num_gpus=0, log_to_driver=False)
else:
    connection.connect()
ray.get(ray.remote(lambda: 0).remote())
me = psutil.Process()
addresses = {
    connection.laddr.ip.removeprefix("::ffff:")
    for process in [me, *me.children(recursive=True)]
    for connection in process.net_connections("inet")
    if connection.status == psutil.CONN_LISTEN
}
ray.shutdown()
print(json.dumps(sorted(addresses)))
"""


def started(how, home):
    """Return the addresses on which a separate Ray listens, the mode of its token, and its stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:  # a socket's path must be short
        done = subprocess.run(
            [sys.executable, "-c", STARTS, how],
            env={**environment, "HOME": str(home), "RAY_TMPDIR": temporary, "RAY_raylet_start_wait_time_s": "240"},
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr
    token = home / ".ray" / "auth_token"
    return json.loads(done.stdout.splitlines()[-1]), token.stat().st_mode & 0o777, done.stderr


@pytest.mark.ray
def test_ray_on_one_machine_is_for_that_machine_and_user_alone(tmp_path):
    """Canary: by default Ray listens on every interface, and other users can read its token."""
    addresses, mode, _ = started("rays own way", tmp_path)
    assert not set(addresses) <= {"127.0.0.1", "::1"}
    assert mode == 0o644
    addresses, mode, said = started("as featray does", tmp_path)
    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert mode == 0o600
    assert f"{tmp_path / '.ray' / 'auth_token'} was readable by other users" in said


@pytest.mark.ray
def test_a_token_that_featray_makes_is_private(tmp_path):
    code = "from featray.graph.ray_internals import keep_token_private; keep_token_private()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)}, check=True, timeout=120)
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) == 64


@pytest.mark.ray
def test_where_the_home_cannot_be_written_the_token_is_in_the_environment(tmp_path):
    """Canary: when Ray starts there by itself, the workaround is no longer needed."""
    code = """
import os
from featray.graph.ray_internals import AuthenticationTokenLoader, authentication_token_setup, keep_token_private
try:
    authentication_token_setup.generate_and_save_token()
except OSError:
    keep_token_private()
    print(len(os.environ["RAY_AUTH_TOKEN"]), AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    (tmp_path / "file").touch()
    environment["HOME"] = str(tmp_path / "file/home")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == "64 True\n" and done.stderr == ""
