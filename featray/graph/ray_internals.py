"""Graph. All uses of Ray's private or undocumented parts, each with its reason.

All behaviour was observed with Ray 2.60. tests/integration/test_ray_internals.py has a canary for each: it fails once
Ray no longer needs the workaround, or no longer has the internals that it depends on.
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
"""Maximum consecutive deaths of one worker while it starts: one may be a lost node, two bad luck."""

_STARTS: Final = "featray-starts"
"""Namespace in the cluster's key-value store for starts that have begun but not finished."""

PLANNING: Final = "PlanVideos"
"""The operator whose input shows how far ahead the feed is: the stage of this name."""


@dataclass(frozen=True)
class Lead:
    """The lead of planning over the work.

    Attributes:
        videos_planned: number of videos submitted to planning so far.
        blocks_waiting: planned units, chunks and features not yet assigned to a worker.
    """

    videos_planned: int = 0
    blocks_waiting: int = 0


def usable_gpus() -> float:
    """Return the number of NVIDIA or AMD GPUs that this process may use, counted as Ray counts them.

    Ray asks the driver (NVML), which also knows GPUs without a device file, as on WSL. It has no public function for
    it.
    """
    for maker in (NvidiaGPUAcceleratorManager, AMDGPUAcceleratorManager):
        if there := maker.get_current_node_num_accelerators():
            visible = maker.get_current_process_visible_accelerator_ids()
            return float(there if visible is None else min(there, sum(device.strip() != "-1" for device in visible)))
    return 0.0


def dead_process() -> str | None:
    """Return the name of an essential process of the Ray started by this process, if one has ended, else None.

    Ray notices after a minute, or at once, and then ends this process with a message of its own.
    """
    node = ray._private.worker._global_node
    dead: list[str] = [kind for kind, _ in node.dead_processes()] if node is not None else []
    return next((name for name in ("gcs_server", "raylet") if name in dead), None)


def is_own() -> bool:
    """Return whether Ray was started by this process, and so has one node."""
    return bool(getattr(ray._private.worker._global_node, "all_processes", None))


@contextmanager
def watch_start(worker: str) -> Iterator[None]:
    """Wrap the start of a worker, and end the run if it dies repeatedly while starting. Ray has no limit for that.

    Deaths are counted in the cluster's key-value store under the actor's id, which stays the same when Ray restarts it.
    From here on, the worker's logs hold no secrets.

    Args:
        worker: name of the worker, for messages.

    Raises:
        RunError: this actor has died too often while starting.
    """
    redact_logs()
    actor = ray.get_runtime_context().get_actor_id() or ""
    deaths = int(internal_kv._internal_kv_get(actor, namespace=_STARTS) or 0)
    if deaths >= _DEATHS:
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise RunError(
            f"{worker} died {deaths} times in a row while starting, last restarted on node {address}: for lack of "
            "memory or in a library (GPU driver, engine); see Ray's worker logs"
        )
    internal_kv._internal_kv_put(actor, str(deaths + 1), namespace=_STARTS)
    try:
        yield
    finally:  # an error is not a death
        internal_kv._internal_kv_del(actor, namespace=_STARTS)


@contextmanager
def on_loopback() -> Iterator[None]:
    """Wrap `ray.init` on this machine, so that Ray's processes listen on loopback instead of every interface.

    Ray does so if its node's address is 127.0.0.1. `_node_ip_address` cannot set that: Ray replaces it by the machine's
    own address. The only switch is meant for systems on which Ray forms no clusters. Ray reads it at import, and its
    processes read it from the environment.
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
    """Create this user's Ray token as `ray.init` would, or find it, and make it readable only for this user.

    Ray writes it with the mode left by the umask, usually 644: every user of the machine could then read it and run
    code as this user. Ray does not start where it cannot write to the home directory, as on a container's read-only
    root: there the token is put into the environment, for this process and those that it starts.
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
                "%s was readable by other users of this machine, who could run code as you through Ray; it is now "
                "private. If somebody may have read it, delete it: a new one will be created",
                path,
            )
    except OSError as error:
        _log.warning("%s: cannot be made private (%s)", path, error.strerror or error)


def end_worker(message: str) -> None:
    """End the process of a worker whose engine is lost: Ray restarts it and gives it the same row.

    A worker with a dead GPU fails at once on each row, so Ray would send it most rows and lose them.
    """
    _log.error("%s; this worker ends", message)
    os._exit(1)


class FetchAtOnce(InlineMetadataFetcher):
    """Fetches a row's metadata inline; a row whose metadata is lost is dropped."""

    def in_data_ready_get_object_size(self, task: Any) -> int | None:
        """Return the row's size in bytes, None if unknown yet. Called by Ray Data."""
        try:
            size: int | None = super().in_data_ready_get_object_size(task)
        except ray.exceptions.RayError as error:
            task._task_error = error  # raised at the end of the task, as if it had died before the row
            return 0
        return size


class _Running(ExecutionCallback):
    """Keeps a reference to the executor of the current stream; a dataset reveals it only after the first row.

    It also keeps the executor's memory flat: Ray Data collects statistics of every block until the end, about 6 kB per
    unit, and sends all of them to an actor of its own every five seconds.
    """

    executor: ClassVar[Any] = None
    lead: ClassVar[Lead] = Lead()

    def before_execution_starts(self, executor: Any) -> None:
        """Note the executor. Called by Ray Data."""
        executor._metadata_fetcher = FetchAtOnce()
        _Running.executor = executor

    def on_execution_step(self, executor: Any) -> None:
        """Update the lead. Called by Ray Data ten times per second."""
        planned, waiting, is_planned = 0, 0, False
        for operator, state in executor._topology.items():  # in order, starting with the feed
            if isinstance(operator, MapOperator):
                operator._output_blocks_stats.clear()
            if PLANNING in operator.name:
                planned, is_planned = operator.metrics.rows_inputs_of_submitted_tasks, True
            elif is_planned:
                waiting += state.total_enqueued_input_blocks()
        _Running.lead = Lead(planned, waiting)


def lead() -> Lead:
    """Return the lead of the last built stream, up to a tenth of a second old."""
    return _Running.lead


def end_stream() -> bool:
    """End the stream from another thread, with its tasks and actors; its iteration then ends as if all were done.

    Returns:
        Whether there was a stream; False before it has started.
    """
    executor = _Running.executor
    if executor is None:
        return False
    try:
        executor.shutdown(force=True)
    finally:
        # Its own thread says so too, unless it waits for an answer of a Ray that has ended: then it never does.
        _, output = executor._output_node
        output.mark_finished()
    return True


def configure_context() -> None:
    """Set Ray Data's settings for this process; they apply to datasets built afterwards."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.max_errored_blocks = -1
    context.raise_original_map_exception = True  # wrapped, it would lose its cause between processes
    # A run may wait for nodes or a long listing; the run itself limits that (capacity.py).
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = False
    if _Running not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_Running)
    context.print_on_execution_start = False
    # With a single video, for example, a worker is idle; users cannot fix anything about that.
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
    """Handle the log record of a block that Ray Data drops: end the run if it cannot usefully continue.

    Ray Data's error budget does not distinguish a worker killed by a video, which loses one unit, from an output that
    cannot be written, which would lose all remaining units. An exception raised here ends the stream, like an error
    beyond the budget.

    Raises:
        FeatrayError: the run cannot continue.
    """
    error = record.exc_info[1] if record.exc_info else None
    _traceback_as_text(record)
    if error is not None:
        _raise_if_fatal(error)
    return True


def _traceback_as_text(record: logging.LogRecord) -> bool:
    """Turn a log record's traceback into text, since its frames keep the stream's actors alive.

    A handler that keeps the record, such as pytest's, would keep the actors and their CPUs too, and the next stream
    would wait for them forever.
    """
    if record.exc_info:
        record.exc_text, record.exc_info = "".join(traceback.format_exception(*record.exc_info)), None
    return True


def _raise_if_fatal(error: BaseException) -> None:
    if isinstance(cause := own_error(error), StorageError):
        raise cause from None
    if isinstance(error, (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError)):
        raise RunError(
            "Ray has no space left for data in transit between workers: free space in /dev/shm and in Ray's temporary "
            "folder, to which it spills, then run again; what has landed is kept"
        ) from None


def own_error(error: BaseException) -> FeatrayError | None:
    """Return the featray error inside a Ray error, if there is one, else None.

    An exception of a task arrives as an error of both types, whose text is a traceback; the original is its cause.
    """
    seen: BaseException | None = error
    while seen is not None and (not isinstance(seen, FeatrayError) or isinstance(seen, ray.exceptions.RayError)):
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return seen


def let_go_of_streams() -> None:
    """Release the CPUs of ended streams before new work requests them.

    Ended streams leave handles of their actors in reference cycles, and actors keep their CPUs until those are
    collected. New work would wait for the CPUs, and while everything waits, nothing triggers Python's collector.
    """
    _Running.executor, _Running.lead = None, Lead()
    gc.collect()


@contextmanager
def building() -> Iterator[None]:
    """Wrap the building of a stream.

    Before Ray 2.64, which pyproject.toml excludes, map_batches accepts max_restarts and max_task_retries with a
    warning.
    """
    let_go_of_streams()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def rows_of(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of a stream as they arrive.

    Not iter_rows: it looks up an actor for statistics for every block, which is a third of the driver's work.
    """
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            yield from ray.get(entry.ref).to_pylist()
