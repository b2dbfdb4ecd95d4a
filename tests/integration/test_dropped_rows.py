"""What Ray Data makes of a process that dies in the middle of a row, and what the pipeline makes of that."""

import os
import pickle
import time

import pyarrow as pa
import pytest
import ray
import ray.exceptions
from ray.data._internal.execution.block_ref_counter import BlockRefCounter
from ray.data._internal.execution.interfaces.physical_operator import DataOpTask
from ray.data._internal.execution.metadata_fetcher import InlineMetadataFetcher
from ray.data.block import BlockAccessor, BlockMetadataWithSchema

from featray.graph.pipeline import FetchAtOnce


@ray.remote(num_returns="streaming", max_retries=0, num_cpus=0)
def rows(whole):
    """So many rows and what is known of each, as tasks of Ray Data give them; dies before it says that of one more."""
    block = pa.table({"task": ["x"]})
    for _ in range(whole):
        yield block
        yield pickle.dumps(
            BlockMetadataWithSchema.from_metadata(BlockAccessor.for_block(block).get_metadata(), block.schema)
        )
    yield block
    time.sleep(1)  # so that the row is heard of
    os._exit(1)


def looks(fetcher, whole, count=30):
    """What a task gave, and the errors it raised, in so many looks of the scheduler; and whether it is finished."""
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
    """When this fails, FetchAtOnce is of no more use."""
    _, errors, is_finished = looks(InlineMetadataFetcher(), 0)
    assert len(errors) > 10 and not is_finished
