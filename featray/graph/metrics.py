"""Graph. The metrics of a run for Prometheus, each defined once, and recorded through Ray.

Ray exports a metric from every process that records it, as `ray_` and its name; counters get the suffix `_total`.
`infra/grafana/featray.json` draws them. Without Ray, for example in the decoding child, recording does nothing.
The driver records the numbers of frames, faces, units and videos; times are recorded by the workers that measure them.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from featray.extract.plan import Outcome
from featray.graph.rows import Receipt
from featray.tables.commits import Commit

_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_SHARES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.999)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: name under which it is recorded.
        tags: tags of every value.
        bounds: upper bounds of a histogram's buckets, in `unit`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    unit: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """Return the names under which Prometheus has it."""
        name = f"ray_{self.name}"
        if self.kind == "histogram":
            return f"{name}_bucket", f"{name}_sum", f"{name}_count"
        return (f"{name}_total",) if self.kind == "counter" else (name,)


FRAMES: Final = Metric("featray_frames", "counter", "sampled frames whose results have landed", "frames", ("dataset",))
FACES: Final = Metric("featray_faces", "counter", "faces whose results have landed", "faces", ("dataset",))
UNITS: Final = Metric(
    "featray_units", "counter", "units by outcome: landed, failed, retried, resumed", "units", ("dataset", "status")
)
VIDEOS: Final = Metric(
    "featray_videos", "counter", "published videos by status: ok, partial, failed", "videos", ("dataset", "status")
)
VIDEOS_OPEN: Final = Metric(
    "featray_videos_open", "gauge", "listed videos that are not complete", "videos", ("dataset",)
)
LEASE_RENEWED: Final = Metric(
    "featray_lease_renewed_seconds",
    "gauge",
    "time at which the run last renewed its lease",
    "seconds since 1970",
    ("dataset",),
)
QUEUE_DEPTH: Final = Metric(
    "featray_queue_depth", "gauge", "pages of up to 16 listed videos that wait for planning", "pages"
)
BYTES_READ: Final = Metric(
    "featray_bytes_read", "counter", "bytes fetched from the storage, by stage: plan, decode", "bytes", ("stage",)
)
STAGE_SECONDS: Final = Metric(
    "featray_stage_seconds",
    "histogram",
    "time of a unit in a stage: decode, detect, crop; of a chunk in infer; of a video in plan",
    "seconds",
    ("stage",),
    _SECONDS,
)
BATCH_FILL: Final = Metric(
    "featray_batch_fill",
    "histogram",
    "faces of a chunk as a share of the capacity of its batches (model.batch_size)",
    "share",
    (),
    _SHARES,
)
INFER_BUSY: Final = Metric(
    "featray_infer_busy_share",
    "gauge",
    "share of its time that an inference worker computes, per chunk",
    "share",
    ("device",),
)

METRICS: Final = (
    FRAMES,
    FACES,
    UNITS,
    VIDEOS,
    VIDEOS_OPEN,
    LEASE_RENEWED,
    QUEUE_DEPTH,
    BYTES_READ,
    STAGE_SECONDS,
    BATCH_FILL,
    INFER_BUSY,
)
"""All metrics that a run may export and the dashboard may draw."""

_KEPT_SECONDS: Final = 5.0
"""Half of Ray's report interval. Ray 2.60 exports a gauge only for two reports after it was set."""

_open: dict[str, Any] = {}


def record(metric: Metric, value: float, **tags: str) -> None:
    """Add to a counter, set a gauge, or observe a histogram's value; does nothing in a process without Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    instrument = _open.get(metric.name) or _open.setdefault(metric.name, _instrument(metric))
    if metric.kind == "counter":
        if value > 0:  # Ray refuses an increase by 0
            instrument.inc(value, tags)
    elif metric.kind == "gauge":
        instrument.set(value, tags)
    else:
        instrument.observe(value, tags)


@contextmanager
def kept(read: Callable[[], Iterable[tuple[Metric, float]]], **tags: str) -> Iterator[None]:
    """Set gauges now and every few seconds, so that a stalled run stays visible.

    Args:
        read: returns gauges and their values; called from a thread.
        tags: tags of all gauges.
    """
    ended = threading.Event()

    def repeat() -> None:
        while True:
            for metric, value in read():
                record(metric, value, **tags)
            if ended.wait(_KEPT_SECONDS):
                return

    thread = threading.Thread(target=repeat, name="featray-gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _instrument(metric: Metric) -> Any:
    from ray.util import metrics

    text = f"{metric.description} [{metric.unit}]"
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, text, list(metric.bounds), metric.tags)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, text, metric.tags)


def record_receipt(receipt: Receipt, dataset: str) -> None:
    """Count the contents of a receipt, as `Tally.take` does."""
    if not (receipt.retry or receipt.resumed):
        record(FRAMES, receipt.frames, dataset=dataset)
        record(FACES, receipt.faces, dataset=dataset)
    if receipt.last:
        status = "landed"
        for name in ("failed", "resumed", "retry"):
            if getattr(receipt, name):
                status = "retried" if name == "retry" else name
        record(UNITS, 1, dataset=dataset, status=status)


def record_commits(commits: Iterable[Commit], dataset: str) -> None:
    """Count the videos of published shards."""
    for commit in commits:
        for video in commit.videos:
            record(VIDEOS, 1, dataset=dataset, status=video.status)


def record_outcome(outcome: Outcome) -> None:
    """Record a decode worker's measurements of a unit, with its last chunk."""
    record(BYTES_READ, outcome.bytes_read, stage="decode")
    for stage, seconds in outcome.seconds.items():
        record(STAGE_SECONDS, seconds, stage=stage)


def record_inference(chips: int, batch_size: int, busy_seconds: float, elapsed_seconds: float, device: str) -> None:
    """Record an inference worker's measurements of a chunk; `elapsed_seconds` since the end of the previous chunk."""
    record(STAGE_SECONDS, busy_seconds, stage="infer")
    if chips:
        record(BATCH_FILL, chips / (math.ceil(chips / batch_size) * batch_size))
    record(INFER_BUSY, min(1.0, busy_seconds / max(elapsed_seconds, 1e-6)), device=device)
