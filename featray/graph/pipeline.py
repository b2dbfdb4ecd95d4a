"""Graph. The whole graph on one screen: videos -> units -> chunks -> features -> receipts.

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
  Ray Data's own way asks for that again ten times a second and forever, since the error budget is without limit;
* an actor whose node is lost starts again where there is room. Where there is none it waits forever, and its task
  with it: then the stream is ended from outside (`end_stream`), and built again for the nodes there are;
* an actor that raises as it starts ends the run at once. One that dies as it starts would be started again
  without end, so its starts are counted, and the third death in a row is raised (`watch_start`).
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
        ray.exceptions.RayError: an actor raised as it started, or what landed cannot be heard of.
    """
    with building():
        dataset = _build(stages, workers, feed)
    for row in rows_of(dataset):
        yield Receipt(**row)


def _build(stages: StageSettings, workers: Workers, feed: Any) -> ray.data.Dataset:
    # They have no processes yet: each actor's copy starts its own. Planners have no GPU.
    planner, decoder = IsolatedDecoder(stages.child.without_gpu()), IsolatedDecoder(stages.child)
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
            LandParts,  # an actor: tasks this far apart would start a process each, a second and a half of CPU
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
