"""Graph. What featray takes from Ray's private or undocumented parts, each with its reason.

All of it was seen with Ray 2.60. tests/integration/test_ray_internals.py has a canary for each: it fails once Ray no
longer needs the workaround, or no longer has what it hangs on.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import ray
import ray.data
import ray.exceptions
from ray._private import ray_constants
from ray._private.accelerators import AMDGPUAcceleratorManager, NvidiaGPUAcceleratorManager
from ray._private.authentication import authentication_token_setup
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.metadata_fetcher import InlineMetadataFetcher
from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.experimental import internal_kv
from ray.util.annotations import RayDeprecationWarning

from featray.errors import FeatrayError, RunError, StorageError
from featray.redaction import redact_logs

_log = logging.getLogger(__name__)

_DEATHS: Final = 3
"""Of one worker while it starts, in a row: one may be a lost node, two bad luck."""

_STARTS: Final = "featray-starts"
"""Namespace in the cluster's key-value store, of what began to start and has not come to its end."""

PLANNING: Final = "PlanVideos"
"""The operator whose backlog says how far ahead the feed is: the stage of that name."""


@dataclass(frozen=True)
class Lead:
    """How far planning is ahead of the work.

    Attributes:
        videos_planned: videos that the stream's planning was given so far.
        blocks_waiting: planned units, their chunks, and features, that no worker has been given yet.
    """

    videos_planned: int = 0
    blocks_waiting: int = 0


def usable_gpus() -> float:
    """Return the GPUs of this machine that this process may use, of two makers, counted as Ray counts them.

    Ray asks the driver (NVML), which knows GPUs that have no device file, as below Windows; it has no public function.
    """
    for maker in (NvidiaGPUAcceleratorManager, AMDGPUAcceleratorManager):
        if there := maker.get_current_node_num_accelerators():
            visible = maker.get_current_process_visible_accelerator_ids()
            return float(there if visible is None else min(there, sum(device.strip() != "-1" for device in visible)))
    return 0.0


def dead_process() -> str | None:
    """Return the name of a process without which the Ray that this process started is of no use, if it has ended.

    Ray notices after a minute, or at once, and then ends this process with words of its own.
    """
    node = ray._private.worker._global_node
    dead: list[str] = [kind for kind, _ in node.dead_processes()] if node is not None else []
    return next((name for name in ("gcs_server", "raylet") if name in dead), None)


@contextmanager
def watch_start(worker: str) -> Iterator[None]:
    """Around the start of a worker, which may kill its process: deaths in a row end the run. Ray has no limit for it.

    Its logs hold no secrets from here on.

    They are counted in the cluster's key-value store, under the actor's id, which stays when Ray starts it again.

    Args:
        worker: what it is, for people.

    Raises:
        RunError: this actor has died here too often.
    """
    redact_logs()
    actor = ray.get_runtime_context().get_actor_id() or ""
    deaths = int(internal_kv._internal_kv_get(actor, namespace=_STARTS) or 0)
    if deaths >= _DEATHS:
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise RunError(
            f"{worker} died {deaths} times in a row as it started, now it is on node {address}: for lack of "
            "memory or in a library (GPU driver, engine); the worker logs of Ray say more"
        )
    internal_kv._internal_kv_put(actor, str(deaths + 1), namespace=_STARTS)
    try:
        yield
    finally:  # an error is not a death
        internal_kv._internal_kv_del(actor, namespace=_STARTS)


@contextmanager
def on_loopback() -> Iterator[None]:
    """Around `ray.init` on this machine: all that Ray starts then listens on loopback, not on every interface.

    Ray does so where its node's address is 127.0.0.1, which `_node_ip_address` cannot say: Ray makes the machine's own
    of it. The one switch is for systems on which it forms no clusters; Ray reads it as it is imported, and what it
    starts reads it from the environment.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    said = os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[name] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]
        if said is not None:
            os.environ[name] = said


def keep_token_private() -> None:
    """Make the token of this user's Ray as `ray.init` would, or find it, readable for this user alone.

    Ray writes it with the mode that the umask leaves, mostly 644: every user of the machine can read it, and run code
    as this one. Ray does not start where it cannot write to the home, as on a container's read-only root: there the
    token is in the environment, for this process and those that it starts.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    path = authentication_token_setup._get_default_token_path()
    try:
        if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
            umask = os.umask(0o077)
            try:
                authentication_token_setup.generate_and_save_token()
            except OSError:
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            finally:
                os.umask(umask)
            AuthenticationTokenLoader.instance().reset_cache()
        elif path.exists() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
            _log.warning(
                "%s could be read by other users of this machine, who could run code as you through Ray; it no longer "
                "can. If they may have read it, delete it: a new one is made",
                path,
            )
    except OSError as error:
        _log.warning("%s: cannot be made private (%s)", path, error.strerror or error)


def end_worker(message: str) -> None:
    """End the process of a worker whose engine is lost: Ray starts it anew and gives it the same row.

    A worker that went on would fail at once on each row, so Ray would send it most rows, and lose them.
    """
    _log.error("%s; this worker ends", message)
    os._exit(1)


class FetchAtOnce(InlineMetadataFetcher):
    """Fetches what is known of a row as it comes; a row of which nothing can be known any more is dropped."""

    def in_data_ready_get_object_size(self, task: Any) -> int | None:
        """Called by Ray Data; bytes of the row, None if they are not known yet."""
        try:
            size: int | None = super().in_data_ready_get_object_size(task)
        except ray.exceptions.RayError as error:
            task._task_error = error  # raised when the task has come to its end, as if it had died before the row
            return 0
        return size


class _Running(ExecutionCallback):
    """Keeps hold of what executes the stream, which a dataset tells only after the first row; one at a time.

    And keeps its memory flat: Ray Data collects statistics of every block until the end, some 6 kB a unit, and sends
    all of them to an actor of its own every five seconds.
    """

    executor: ClassVar[Any] = None
    lead: ClassVar[Lead] = Lead()

    def before_execution_starts(self, executor: Any) -> None:
        """Called by Ray Data."""
        executor._metadata_fetcher = FetchAtOnce()
        _Running.executor = executor

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data, ten times a second."""
        planned, waiting, is_planned = 0, 0, False
        for operator, state in executor._topology.items():  # from the feed on
            if isinstance(operator, MapOperator):
                operator._output_blocks_stats.clear()
            if PLANNING in operator.name:
                planned, is_planned = operator.metrics.rows_inputs_of_submitted_tasks, True
            elif is_planned:
                waiting += state.total_enqueued_input_blocks()
        _Running.lead = Lead(planned, waiting)


def lead() -> Lead:
    """Return the operator statistics of the last built stream, a tenth of a second old."""
    return _Running.lead


def end_stream() -> bool:
    """End the stream from another thread, with its tasks and actors: iterating it then ends as if all were done.

    Returns:
        Whether there was one; False before it has started.
    """
    if _Running.executor is None:
        return False
    _Running.executor.shutdown(force=True)
    return True


def configure_context() -> None:
    """Ray Data's settings for this process; datasets built afterwards take them over."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.max_errored_blocks = -1
    context.raise_original_map_exception = True  # wrapped, it would lose its cause on the way from its process
    # A run may wait for nodes, or for a long listing; how long is its own to say (capacity.py).
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = False
    if _Running not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_Running)
    context.print_on_execution_start = False
    # Of one video, say, a worker stands by; nothing that users could fix.
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors", UserWarning)
    dropping = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    if _error_dropped not in dropping.filters:
        dropping.addFilter(_error_dropped)
    ending = logging.getLogger("ray.data.exceptions")
    if _traceback_as_text not in ending.filters:
        ending.addFilter(_traceback_as_text)
    for handler in logging.getLogger("ray.data").handlers:
        # A dropped task comes with a traceback; Ray keeps it in its log files, users get an errors row.
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)


def _error_dropped(record: logging.LogRecord) -> bool:
    """Called with the log record of a block that Ray Data drops: end the run instead, if it is of no use to go on.

    Ray Data's error budget makes no difference between a worker that a video killed, which costs a unit, and an output
    that cannot be written, which would cost all that are left. What is raised here ends the stream, as an error beyond
    the budget does.

    Raises:
        FeatrayError: why the run cannot go on.
    """
    error = record.exc_info[1] if record.exc_info else None
    _traceback_as_text(record)
    if error is not None:
        _raise_if_fatal(error)
    return True


def _traceback_as_text(record: logging.LogRecord) -> bool:
    """Turn a log record's traceback into text, since its frames keep the stream's actors alive.

    Whatever handler keeps the record (pytest's does) would keep them too, and their CPUs from the next stream, which
    would then wait forever.
    """
    if record.exc_info:
        record.exc_text, record.exc_info = "".join(traceback.format_exception(*record.exc_info)), None
    return True


def _raise_if_fatal(error: BaseException) -> None:
    if isinstance(cause := own_error(error), StorageError):
        raise cause from None
    if isinstance(error, (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError)):
        raise RunError(
            "Ray has no room left for what is on its way between workers: free space in /dev/shm and in the folder "
            "that Ray spills to (its temporary folder), then run again; what has landed is kept"
        ) from None


def own_error(error: BaseException) -> FeatrayError | None:
    """Return the featray error inside a Ray error, if there is one.

    What a task raised comes as an error of both kinds, whose text is a traceback; what was raised is its cause.
    """
    seen: BaseException | None = error
    while seen is not None and (not isinstance(seen, FeatrayError) or isinstance(seen, ray.exceptions.RayError)):
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return seen


def let_go_of_streams() -> None:
    """Give back the CPUs of streams that have ended, before something else asks for them.

    They leave handles of their actors in reference cycles, and actors keep their CPUs until those are collected:
    whatever comes next would wait for them, and while all wait, nothing makes Python collect.
    """
    _Running.executor, _Running.lead = None, Lead()
    gc.collect()


@contextmanager
def building() -> Iterator[None]:
    """Around what builds a stream.

    Until Ray 2.64, which pyproject.toml excludes, map_batches takes max_restarts and max_task_retries with a warning.
    """
    let_go_of_streams()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def rows_of(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of a stream as they come.

    Not iter_rows: for every block it looks up an actor for statistics, a third of what the driver does.
    """
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            yield from ray.get(entry.ref).to_pylist()
