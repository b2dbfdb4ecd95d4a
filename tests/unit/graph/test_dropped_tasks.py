"""A log handler must not keep the objects of a task that Ray Data dropped."""

import gc
import logging
import weakref

from featray.graph.ray_internals import configure_context


class Actor:
    """An object in the frame of the error, as the handles of the stream's actors are."""


def fail():
    actor = Actor()
    seen.append(weakref.ref(actor))
    raise ValueError("lost")


seen: list[weakref.ref[Actor]] = []


def test_the_log_keeps_the_traceback_and_not_what_it_refers_to(caplog):
    configure_context()
    logger = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    logger.addHandler(caplog.handler)  # Ray's loggers do not propagate
    try:
        try:
            fail()
        except ValueError as error:
            logger.error("dropped", exc_info=error)
    finally:
        logger.removeHandler(caplog.handler)
    assert "in fail" in caplog.text and "ValueError: lost" in caplog.text
    gc.collect()
    assert seen[0]() is None
