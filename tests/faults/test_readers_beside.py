"""DuckDB and Spark read an output while a run publishes to it: each answer covers whole commits, without errors."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

import featray
from featray.tables.layout import open_output
from featray.tables.query import steady_sql
from tests.fixtures.published import SPARSE
from tests.fixtures.runs import run_here, small_config

COUNTS = """
SELECT video_id, uri, faces AS told, frames_sampled AS told_frames,
  (SELECT count(*) FROM faces f WHERE f.video_id = v.video_id) AS faces,
  (SELECT count(*) FROM frames f WHERE f.video_id = v.video_id) AS frames
FROM videos v
"""


@pytest.fixture
def busy(clips, small_network, tmp_path):
    """Return an output, and the command of a run that publishes three more shards to it and replaces one."""
    for site in "abcde":
        (tmp_path / "in" / site).mkdir(parents=True)
    for site in "ab":
        shutil.copy(clips / "face.mp4", tmp_path / "in" / site / "one.mp4")
    config = small_config(
        [f"{tmp_path}/in/*/*.mp4"],
        tmp_path / "out",
        small_network,
        decode=SPARSE,
        input={"uris": [f"{tmp_path}/in/*/*.mp4"], "path_fields": "{site}/{name}"},
    )
    run_here(config)
    for site in "bcde":
        shutil.copy(clips / ("face.mp4" if site != "b" else "no_face.mp4"), tmp_path / "in" / site / "one.mp4")
    data = config.model_dump(mode="json") | {"cluster": {"executor": "local", "decode_workers": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    return str(tmp_path / "out"), [sys.executable, "-m", "featray", "run", str(tmp_path / "run.yaml"), "--quiet"]


def watch(command, ask):
    """Ask before a run, repeatedly until it has ended, and once more; return the answers."""
    answers = [ask()]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while run.poll() is None:
            answers.append(ask())
        assert run.returncode == 0, run.communicate()[0]
        return [*answers, ask()]
    finally:
        run.kill()
        run.communicate()


def check(answers):
    before: set[str] = set()
    for answer in answers:
        names = [row["uri"] for row in answer]
        assert len(set(names)) == len(names) and before <= set(names), "a video twice, or one that was there before"
        for row in answer:
            assert (row["told"], row["told_frames"]) == (row["faces"], row["frames"]), "rows of half a commit"
        before = set(names)
    assert len(answers) > 2 and (len(answers[0]), len(answers[-1])) == (2, 5)


def test_duckdb(busy):
    out, command = busy

    def ask():
        _connection, answer = steady_sql(open_output(out), COUNTS, None, None, safe=True)
        return answer.read_all().to_pylist()

    check(watch(command, ask))


@pytest.mark.long
@pytest.mark.timeout(2400)  # Java, and repeated queries during a run: ten minutes on shared CPUs
def test_spark(busy, spark):
    """Spark reads the files that `Tables.files` names; if one is deleted meanwhile, the query fails and is retried."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    out, command = busy

    def ask():
        while True:
            with featray.open(out) as tables:
                files = {table: tables.files(table) for table in ("videos", "faces", "frames")}
            try:
                for table, paths in files.items():
                    spark.read.option("mergeSchema", True).parquet(*paths).createOrReplaceTempView(table)
                sql = """
                    SELECT v.video_id, uri, faces AS told, frames_sampled AS told_frames, coalesce(f.n, 0) AS faces,
                      coalesce(g.n, 0) AS frames FROM videos v
                    LEFT JOIN (SELECT video_id, count(*) AS n FROM faces GROUP BY video_id) f USING (video_id)
                    LEFT JOIN (SELECT video_id, count(*) AS n FROM frames GROUP BY video_id) g USING (video_id)
                """
                return [row.asDict() for row in spark.sql(sql).collect()]
            except (PySparkException, Py4JJavaError):
                assert not all(os.path.exists(path) for paths in files.values() for path in paths)

    check(watch(command, ask))
