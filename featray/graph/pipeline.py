"""The whole graph on one screen: videos -> units -> chunks -> features -> receipts.

Settings for faults, each measured on Ray 2.60:

* one row a block (`target_max_block_size=1`): a row is what is scheduled, retried and lost;
* actors restart without limit, but a task is tried three times and then dropped, within an
  error budget without limit: a poison unit costs itself, never the job. What was dropped is
  found by reconciling receipts with the plan, and run again;
* one task in flight for each actor: with two, a crash can take a healthy neighbour along. Inference on a GPU has two:
  Ray Data looks for finished tasks ten times a second, and fetches a task's input once it is sent, during which a GPU
  that needs a fraction of a second for a chunk would stand still. On CPUs a chunk takes seconds, and a second one
  would wait for its actor while others have nothing to do;
* what is known of a finished task's rows is fetched at once. Ray Data's default is a thread of its own: then a task is
  found to be done one look or two later, and an actor with one task in flight waits (units of four frames: 166
  milliseconds instead of 122 each). Of a process that dies after it gave a row and before it said what that row is,
  Ray Data's own way asks for that again ten times a second and for ever, since the error budget is without limit;
* an actor whose node is lost starts again where there is room. Where there is none it waits for ever, and its task
  with it: then the stream is ended from outside (`end_stream`), and built again for the nodes there are;
* an actor that raises as it starts ends the run at once. One that dies as it starts would be started again
  without end, so its starts are counted, and the third death in a row is raised (`watch_start`).
"""

from __future__ import annotations

import gc
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import ray
import ray.data
import ray.exceptions
from ray.data import ActorPoolStrategy, DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.metadata_fetcher import InlineMetadataFetcher
from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.experimental import internal_kv
from ray.util.annotations import RayDeprecationWarning

from featray.config import Config
from featray.errors import RunError
from featray.extract.child import ChildSettings
from featray.graph.feed import Lead, VideoFeed, beside_driver
from featray.graph.rows import Receipt
from featray.graph.stages import DecodeDetect, Infer, InferSettings, LandParts, PlanVideos
from featray.graph.workers import LIGHT_CPUS, Workers
from featray.tables.layout import Partition

_DEATHS: Final = 3
"""Of one worker while it starts, in a row: one may be a lost node, two bad luck."""

_STARTS: Final = "featray-starts"
"""Namespace in the cluster's key-value store, of what began to start and has not come to its end."""


@dataclass(frozen=True)
class Graph:
    """What the graph is built from; `detector_sha256` is that of the detector the run was planned with."""

    config: Config
    partition: Partition
    run_id: str
    engine: InferSettings
    workers: Workers
    detector_sha256: str


def receipts(graph: Graph, feed: Any) -> Iterator[Receipt]:
    """Runs the pipeline over the videos that arrive through `feed`.

    Raises:
        ray.exceptions.RayError: an actor raised as it started, or what landed cannot be heard of.
    """
    _Running.executor, _Running.lead = None, Lead()
    # A stream that has ended leaves handles of its actors in reference cycles, and they keep their CPUs until those are
    # collected: the next stream's would wait for them, and while all wait, nothing makes Python collect.
    gc.collect()
    with warnings.catch_warnings():
        # map_batches takes max_restarts and max_task_retries until Ray 2.64, which pyproject.toml excludes.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = _build(graph, feed)
    # Not iter_rows: for every block it looks up an actor for statistics, a third of what the driver does.
    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            for row in ray.get(entry.ref).to_pylist():
                yield Receipt(**row)


def _build(graph: Graph, feed: Any) -> ray.data.Dataset:
    config, workers = graph.config, graph.workers
    child = ChildSettings(
        config.decode, config.detect, config.input.storage_options, graph.engine.cache_dir, graph.detector_sha256
    )
    dataset: ray.data.Dataset = (
        ray.data.read_datasource(
            VideoFeed(feed),
            override_num_blocks=1,
            num_cpus=0,
            # Read again, it would get the pages after those it gave, and Ray would drop as many: see Feeder.is_taken.
            ray_remote_args={"scheduling_strategy": beside_driver(), "max_retries": 0},
        )
        .map_batches(
            PlanVideos,
            fn_constructor_args=(graph.partition, child, watch_start),
            num_cpus=LIGHT_CPUS,
            compute=_pool(workers.plan),
            **_ONE_ROW,
            **_FAULTS,
        )
        .map_batches(
            DecodeDetect,
            fn_constructor_args=(child, watch_start),
            num_cpus=workers.decode_cpus,
            memory=workers.memory_bytes,
            compute=_pool(workers.decode),
            **_ONE_ROW,
            **_FAULTS,
        )
        .map_batches(
            Infer,
            fn_constructor_args=(graph.engine, watch_start),
            num_cpus=workers.infer_cpus,
            num_gpus=workers.infer_gpus,
            memory=workers.memory_bytes,
            compute=_pool(workers.infer, in_flight=2 if workers.infer_gpus else 1),
            **_ONE_ROW,
            **_FAULTS,
        )
        .map_batches(
            LandParts,  # an actor: tasks this far apart would start a process each, a second and a half of CPU
            fn_constructor_args=(graph.partition, graph.run_id, config.run.max_attempts),
            num_cpus=LIGHT_CPUS,
            compute=_pool(workers.land),
            **_ONE_ROW,
            **_FAULTS,
        )
    )
    return dataset


@contextmanager
def watch_start(worker: str) -> Iterator[None]:
    """Around what may kill a worker's process as it starts: deaths in a row end the run, for which Ray has no limit.

    They are counted in the cluster's key-value store, under the actor's id, which stays when Ray starts it again.

    Args:
        worker: what it is, for people.

    Raises:
        RunError: this actor has died here too often.
    """
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
            if PlanVideos.__name__ in operator.name:
                planned, is_planned = operator.metrics.rows_inputs_of_submitted_tasks, True
            elif is_planned:
                waiting += state.total_enqueued_input_blocks()
        _Running.lead = Lead(planned, waiting)


def lead() -> Lead:
    """Of the stream that was built last, a tenth of a second ago."""
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
    # A run may wait for nodes, or for a long listing; how long is its own to say (capacity.py).
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = False
    if _Running not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_Running)
    context.print_on_execution_start = False
    # Of one video, say, a worker stands by; nothing that users could mend.
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors", UserWarning)
    dropping = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    if _traceback_as_text not in dropping.filters:
        dropping.addFilter(_traceback_as_text)
    for handler in logging.getLogger("ray.data").handlers:
        # A dropped task comes with a traceback; Ray keeps it in its log files, users get an errors row.
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)


def _traceback_as_text(record: logging.LogRecord) -> bool:
    """Of a dropped task's log record: its frames refer to the actors of the stream.

    Whatever handler keeps the record (pytest's does) would keep them too, and their CPUs from the next stream, which
    would then wait for ever.
    """
    if record.exc_info:
        record.exc_text, record.exc_info = "".join(traceback.format_exception(*record.exc_info)), None
    return True


_ONE_ROW: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
_FAULTS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 2}


def _pool(size: int, *, in_flight: int = 1) -> ActorPoolStrategy:
    return ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=in_flight)
