import json
import re
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest

from featray.graph import metrics
from featray.graph.metrics import FRAMES, METRICS, VIDEOS_OPEN, kept, record

DASHBOARD = Path(__file__).parents[3] / "infra" / "grafana" / "featray.json"

RAY_OWN = {"ray_node_gpus_utilization", "ray_node_cpu_utilization", "ray_node_mem_used", "ray_object_store_memory"}
"""Ray's documented system metrics that the dashboard shows together with featray's."""


def expressions():
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def names(expression):
    return set(re.findall(r"\b(?:ray|featray)_\w+", expression))


def test_every_panel_draws_metrics_that_exist():
    exported = {name: metric for metric in METRICS for name in metric.exported}
    drawn = set()
    for title, expression in expressions():
        assert names(expression), f"{title} draws nothing"
        assert names(expression) <= exported.keys() | RAY_OWN, title
        for name, labels in re.findall(r"(ray_featray_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*=", labels)) <= set(exported[name].tags), f"{title} filters by unknown tags"
        drawn |= names(expression)
    unseen = [metric.name for metric in METRICS if not drawn & set(metric.exported)]
    assert not unseen, "metrics that no panel draws"


def test_panels_group_by_tags_that_exist():
    exported = {name: metric for metric in METRICS for name in metric.exported}
    for title, expression in expressions():
        for group in re.findall(r"by \(([^)]*)\)", expression):
            tags = {tag for name in names(expression) & exported.keys() for tag in exported[name].tags}
            assert set(re.findall(r"\w+", group)) <= tags | {"le", "instance"}, title


def test_definitions_are_whole():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("featray_") and metric.description and metric.unit
        assert not metric.name.endswith("_total"), "Ray appends it"
        assert bool(metric.bounds) == (metric.kind == "histogram")
        assert list(metric.bounds) == sorted(metric.bounds)


def test_recording_without_ray_does_nothing_and_needs_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    record(FRAMES, 3, dataset="d")


def test_gauges_are_kept_for_as_long_as_a_run_lasts(monkeypatch):
    recorded = []
    monkeypatch.setattr(metrics, "record", lambda metric, value, **tags: recorded.append((metric, value, tags)))
    monkeypatch.setattr(metrics, "_KEPT_SECONDS", 0.01)
    values = count()
    with kept(lambda: [(VIDEOS_OPEN, next(values))], dataset="d"):
        while len(recorded) < 3:
            time.sleep(0.005)
    assert recorded[:3] == [(VIDEOS_OPEN, value, {"dataset": "d"}) for value in range(3)]
    assert not [thread for thread in threading.enumerate() if thread.name == "featray-gauges"]


@pytest.mark.parametrize("broken", ["ray_featray_frame_total", "ray_featray_frames"])
def test_a_wrong_name_would_be_seen(broken):
    assert not names(broken) <= {name for metric in METRICS for name in metric.exported}
