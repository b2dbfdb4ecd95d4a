"""Graph. The whole graph on one screen: videos -> units -> chunks -> features -> receipts.

Settings for fault tolerance, each measured on Ray 2.60:

* One row per block (`target_max_block_size=1`): a row is the unit of scheduling, retry and loss.
* Actors restart without limit, but a task is tried three times and then dropped, within an unlimited error budget: a
  poison unit is lost, but never the job. Dropped units are found by comparing receipts with the plan, and run again.
* One task in flight per actor: with two, a crash can also lose a healthy task. Inference on a GPU has two: Ray Data
  checks for finished tasks ten times per second, and fetches a task's input only after it is sent; meanwhile a GPU that
  needs a fraction of a second per chunk would idle. On CPUs a chunk takes seconds, and a second task would wait for its
  actor while other actors idle.
* Metadata of a finished task's rows is fetched inline. Ray Data's default is a separate thread, which detects finished
  tasks one or two checks later, so an actor with one task in flight waits (units of four frames: 166 milliseconds
  instead of 122 each). Also, if a worker dies after yielding a row but before its metadata, Ray Data's default retries
  the fetch ten times per second, forever, since the error budget is unlimited.
* An actor whose node is lost restarts where there is room. Without room it waits forever, and so does its task: the
  stream is then ended from outside (`end_stream`) and rebuilt for the remaining nodes.
* An actor that raises while it starts ends the run at once. One that dies while it starts would be restarted without
  end, so its starts are counted, and the third death in a row raises an error (`watch_start`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from featray.extract.isolation import IsolatedDecoder
from featray.graph.feed import VideoFeed, beside_driver
from featray.graph.ray_internals import building, end_worker, rows_of, watch_start
from featray.graph.rows import Receipt
from featray.graph.stages import DecodeDetect, Infer, LandParts, PlanVideos, StageSettings
from featray.graph.workers import LIGHT_CPUS, Workers


def receipts(stages: StageSettings, workers: Workers, feed: Any) -> Iterator[Receipt]:
    """Run the pipeline over the videos that arrive through `feed`, and yield a receipt for each part that has landed.

    Raises:
        ray.exceptions.RayError: an actor raised while it started, or receipts can no longer be received.
    """
    with building():
        dataset = _build(stages, workers, feed)
    for row in rows_of(dataset):
        yield Receipt(**row)


def _build(stages: StageSettings, workers: Workers, feed: Any) -> ray.data.Dataset:
    # These have no processes yet: each actor's copy starts its own. Planners need no GPU.
    planner, decoder = IsolatedDecoder(stages.child.without_gpu()), IsolatedDecoder(stages.child)
    dataset: ray.data.Dataset = (
        ray.data.read_datasource(
            VideoFeed(feed),
            override_num_blocks=1,
            num_cpus=0,
            # A retry would read later pages, and Ray would drop as many as the first try yielded: see Feeder.is_taken.
            ray_remote_args={"scheduling_strategy": beside_driver(), "max_retries": 0},
        )
        .map_batches(
            PlanVideos,
            fn_constructor_args=(stages.partition, planner, watch_start),
            num_cpus=LIGHT_CPUS,
            compute=_pool(workers.plan),
            **_ONE_ROW,
            **_FAULTS,
        )
        .map_batches(
            DecodeDetect,
            fn_constructor_args=(decoder, watch_start, end_worker),
            num_cpus=workers.decode_cpus,
            num_gpus=workers.decode_gpus,
            memory=workers.memory_bytes,
            compute=_pool(workers.decode),
            **_ONE_ROW,
            **_FAULTS,
        )
        .map_batches(
            Infer,
            fn_constructor_args=(stages.infer, watch_start, end_worker),
            num_cpus=workers.infer_cpus,
            num_gpus=workers.infer_gpus,
            memory=workers.memory_bytes,
            compute=_pool(workers.infer, in_flight=2 if workers.infer_gpus else 1),
            **_ONE_ROW,
            **_FAULTS,
        )
        .map_batches(
            LandParts,  # an actor: tasks this rare would each start a process, 1.5 s of CPU
            fn_constructor_args=(stages.partition, stages.run_id, stages.max_attempts, watch_start),
            num_cpus=LIGHT_CPUS,
            compute=_pool(workers.land),
            **_ONE_ROW,
            **_FAULTS,
        )
    )
    return dataset


_ONE_ROW: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
_FAULTS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 2}


def _pool(size: int, *, in_flight: int = 1) -> ActorPoolStrategy:
    return ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=in_flight)
