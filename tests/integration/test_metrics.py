"""Prometheus finds the metrics of metrics.py at Ray's own endpoint after a run, with the tables' totals."""

import time

import pytest

from featray.graph import metrics
from featray.graph.metrics import METRICS, QUEUE_DEPTH, VIDEOS_OPEN, kept, record
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from tests.fixtures.main_job import scrape


@pytest.fixture(scope="module")
def values(main_job):
    return main_job.metrics


def test_totals_are_the_tables(main_job, values):
    sql = (
        "SELECT (SELECT count(*) FROM faces) AS faces, (SELECT count(*) FROM frames) AS frames, "
        "(SELECT sum(bytes_read) FROM videos) AS bytes"
    )
    (totals,) = run_sql(connect(open_output(str(main_job.out))), sql).read_all().to_pylist()
    assert values["ray_featray_frames_total", "main"] == totals["frames"] > 20
    assert values["ray_featray_faces_total", "main"] == totals["faces"] > 10
    read = sum(values["ray_featray_bytes_read_total", stage] for stage in ("plan", "decode"))
    assert read == totals["bytes"]


def test_units_and_videos_are_counted_by_status(main_job, values):
    assert main_job.summary.videos == {"ok": 2, "partial": 1, "failed": 1}
    for status, count in main_job.summary.videos.items():
        assert values["ray_featray_videos_total", "main", status] == count
    assert values["ray_featray_units_total", "main", "landed"] >= 3
    assert values["ray_featray_units_total", "main", "failed"] == 1
    assert ("ray_featray_videos_open", "main") in values


def test_every_stage_was_timed(values):
    for stage in ("plan", "decode", "detect", "infer"):
        count, seconds = (values[f"ray_featray_stage_seconds_{kind}", stage] for kind in ("count", "sum"))
        assert count >= 3 and seconds > 0
    filled = values["ray_featray_batch_fill_sum",], values["ray_featray_batch_fill_count",]
    assert 0 < filled[0] / filled[1] < 0.2, "16 faces at most, in batches of 256"


def test_every_metric_is_exported_under_the_name_it_says(values):
    found = {key[0] for key in values if key[0].startswith("ray_featray_")}
    assert found == {name for metric in METRICS for name in metric.exported}


def test_what_alerts_and_dashboard_ask_of_ray_is_there(values):
    assert {key[0] for key in values} >= {
        "ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_disk_usage", "ray_node_disk_free"
    }  # fmt: skip
    places = {key[1] for key in values if key[0] == "ray_object_store_memory"}
    assert places == {"MMAP_SHM", "MMAP_DISK", "SPILLED", "WORKER_HEAP"}
    assert ("ray_resources", "object_store_memory", "USED") in values
    assert values["ray_resources", "object_store_memory", "AVAILABLE"] > 0


def test_the_lease_is_seen_to_be_renewed(values):
    assert 0 < time.time() - values["ray_featray_lease_renewed_seconds", "main"] < 600


def test_a_run_that_stands_still_is_still_seen(cluster, monkeypatch):
    """Ray exports a gauge that is set once for two of its reports, here of a second each; those of a run are kept."""
    monkeypatch.setattr(metrics, "_KEPT_SECONDS", 0.5)
    record(QUEUE_DEPTH, 7)
    once, again = ("ray_featray_queue_depth",), ("ray_featray_videos_open", "kept")
    with kept(lambda: [(VIDEOS_OPEN, 7)], dataset="kept"):
        assert _comes_to(lambda values: once in values and values.get(again) == 7)
        assert _comes_to(lambda values: once not in values and values.get(again) == 7), "kept() can go"


def _comes_to(there):
    for _ in range(60):
        if there(scrape()):
            return True
        time.sleep(0.5)
    return False
