import itertools
import threading
import time

import pytest

from featray.sources.ahead import Ahead, in_order


def test_results_keep_their_order_whatever_takes_longest():
    def slow(i):
        time.sleep(0.02 * (i % 3 == 0))
        return i

    assert list(in_order(slow, range(40), threads=8)) == list(range(40))


def test_calls_are_under_way_together():
    meeting = threading.Barrier(4, timeout=10)  # passes only if four calls are waiting at once
    assert list(in_order(lambda i: meeting.wait() >= 0, range(8), threads=4)) == [True] * 8


def test_an_endless_listing_is_only_read_as_far_as_needed():
    taken = []
    stream = in_order(lambda i: i, (taken.append(i) or i for i in itertools.count()), threads=4)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    stream.close()
    assert len(taken) < 20


def test_an_error_comes_after_what_was_before_it():
    def broken():
        yield from range(3)
        raise KeyError("three")

    for stream in (in_order(lambda i: i, broken(), threads=2), iter(Ahead(broken()))):
        taken = []
        with pytest.raises(KeyError):
            for item in stream:
                taken.append(item)
        assert taken == [0, 1, 2] or taken == []  # in_order may reach the end of the listing first


def test_a_stream_that_nobody_wants_ends():
    stream = Ahead(itertools.count())
    assert next(iter(stream)) == 0
    stream.close()
    deadline = time.monotonic() + 10
    while any(thread.name == "featray-ahead" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
