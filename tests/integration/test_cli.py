"""The command line: exit codes, one-line errors, output formats; as a separate process where that matters."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.schema import TABLES
from tests.fixtures.runs import make_config, run_here


def featray(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which takes a tenth of the time of a separate one."""
    done = CliRunner().invoke(main, list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "featray", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def out(clips, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "tables"
    run_here(make_config([clips / "face.mp4"], folder, decode={"sample": {"every": 118}}))
    return folder


@pytest.fixture
def config(tmp_path, clips):
    def write(uris=(f"{clips}/face.mp4",), out=None):
        path = tmp_path / "c.yaml"
        place = out or tmp_path / "out"
        path.write_text(f"dataset: d\ninput: {{uris: {json.dumps(list(map(str, uris)))}}}\noutput: {{uri: {place}}}\n")
        return path

    return write


def check_refusal(done, code, *expected):
    assert done.returncode == code, done.stderr
    told = done.stderr.removeprefix("featray: waiting for Ray to start on this machine\n")  # on a slow one
    assert told.count("\n") == 1, "one line, no traceback"
    for text in ("featray: ", *expected):
        assert text in told


def test_a_missing_video(config, tmp_path):
    done = process("run", config([tmp_path / "none.mp4"]))
    check_refusal(done, 2, "nothing found at file://", "none.mp4")
    assert not (tmp_path / "out").exists(), "nothing is begun for an input that is not there"


def test_an_empty_input_list(config):
    check_refusal(featray("run", config([])), 2, "input.uris: is empty")


def test_an_output_that_is_none_of_ours(config, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.docx").write_text("precious")
    done = featray("run", config(out=tmp_path / "theirs"))
    check_refusal(done, 1, "is neither empty nor a featray output")
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["thesis.docx"]


def test_an_unknown_key_and_a_wrong_value(config):
    check_refusal(
        featray("run", config(), "--set", "detect.min_scor=1"),
        2,
        "detect.min_scor: unknown key, did you mean detect.min_score?",
    )
    check_refusal(featray("run", config(), "--set", "detect.min_score=x"), 2, "detect.min_score: ")


def test_a_missing_config(tmp_path):
    check_refusal(featray("run", tmp_path / "c.yaml"), 2, "no such config file")


@pytest.mark.ray
def test_a_ray_that_does_not_start(config, tmp_path):
    """Ray's sockets are in its folder, and their paths must be short."""
    done = process(
        "run", config(), "--quiet", "--executor", "ray", env={**os.environ, "RAY_TMPDIR": str(tmp_path / ("x" * 60))}
    )
    check_refusal(done, 1, "Ray did not start on this machine: ", "is too long for its sockets; set RAY_TMPDIR")


@pytest.mark.ray
def test_gpus_that_this_machine_alone_can_never_get(config, tmp_path):
    """A Ray that featray starts has no other nodes: waiting for them would never end."""
    done = process("run", config(), "--quiet", "--executor", "ray", "--set", "cluster.gpus=3")
    check_refusal(done, 2, "no place", "featray started this Ray, which no node can join: set RAY_ADDRESS")


def test_weights_that_are_none(config, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"nothing of the kind")
    done = featray("run", config(), "--set", f"model.checkpoint={tmp_path}/w.safetensors")
    check_refusal(done, 1, "w.safetensors")


def test_a_traceback_only_on_request(config):
    assert "Traceback" in process("--debug", "run", config([])).stderr


def test_reading_what_is_no_output(tmp_path):
    for command in (("status", tmp_path), ("query", tmp_path, "SELECT 1")):
        check_refusal(featray(*command), 1, "is not a featray output")


def test_status(out):
    found = json.loads(process("status", out, "--json").stdout)
    assert found["videos"] == {"ok": 1, "partial": 0, "failed": 0}
    assert (found["frames"], found["faces"]) == (4, 4)
    assert [row["status"] for row in found["runs"]] == ["done"]
    assert "1 ok, 0 partial, 0 failed" in featray("status", out).stdout


def test_query_formats(out):
    sql = "SELECT frame_index, pts_us, AU12, landmarks5 FROM faces ORDER BY pts_us"
    rows = json.loads(featray("query", out, sql, "--format", "json").stdout)
    assert [row["frame_index"] for row in rows] == [0, 118, 236, 354]
    assert len(rows[0]["landmarks5"]) == 10
    table = list(csv.DictReader(io.StringIO(featray("query", out, sql, "--format", "csv").stdout)))
    assert [float(row["AU12"]) for row in table] == pytest.approx([row["AU12"] for row in rows])
    assert "(4 rows)" in featray("query", out, sql).stdout


def test_wrong_sql_and_unknown_release(out):
    check_refusal(process("query", out, "SELECT nothing FROM faces"), 2, "nothing", "tables: faces, blendshapes")
    check_refusal(featray("query", out, "SELECT 1", "--release", "x"), 2, "--release x: not in this output; it has: ")


def test_sql_from_a_file(out, tmp_path):
    (tmp_path / "smiles.sql").write_text("-- µ\nSELECT count(*) AS n, sum(faces) AS faces\nFROM videos\n")
    done = featray("query", out, f"@{tmp_path}/smiles.sql", "--format", "json")
    assert json.loads(done.stdout) == [{"n": 1, "faces": 4}]
    check_refusal(featray("query", out, f"@{tmp_path}/none.sql"), 2, "none.sql: No such file or directory")
    check_refusal(featray("query", out, f"@{tmp_path}"), 2, "Is a directory")


def test_schema():
    printed = featray("schema").stdout
    assert all(f"{name}: " in printed for name in TABLES)
    assert "FACS action unit" in featray("schema", "faces").stdout
    check_refusal(featray("schema", "foo"), 2, "no such table")


def test_a_scheduled_job_says_in_one_line_what_there_was(clips, tmp_path):
    """Run over two finished videos, then over one: the other is reported, and dropped only with `--drop-deleted`."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("face.mp4", "no_face.mp4"):
        (folder / name).write_bytes((clips / name).read_bytes())
    options = {"decode": {"sample": {"every": 118}}}
    run_here(make_config([f"{folder}/"], tmp_path / "out", **options))
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(make_config([f"{folder}/"], tmp_path / "out", **options).model_dump(mode="json")))

    def reprocess(*arguments):
        command = [sys.executable, "jobs/reprocess.py", f"--config={path}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        line = json.loads(done.stdout)
        assert line["status"] == "nothing_to_do"
        return line["already_published"]["ok"], line["deleted"], line["dropped"]

    def published():
        return [row["uri"][-11:] for row in json.loads(featray("query", tmp_path / "out", sql, *as_json).stdout)]

    sql, as_json = "SELECT uri FROM videos ORDER BY uri", ("--format", "json")
    assert reprocess() == (2, 0, 0)
    (folder / "no_face.mp4").unlink()
    assert reprocess() == (1, 1, 0)
    told = featray("run", path).stdout
    assert "deleted  1 published video no longer in the input; the rows stay; --drop-deleted" in told
    assert len(published()) == 2
    assert reprocess("--drop-deleted") == (1, 1, 1)
    assert published() == ["in/face.mp4"]
    assert reprocess("--drop-deleted") == (1, 0, 0)


@pytest.mark.ray
def test_the_doctor_finds_a_healthy_machine_healthy():
    """The check uses a Ray that it starts itself; no part is replaced."""
    done = process("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (ray,) = (check for check in json.loads(done.stdout)["checks"] if check["group"] == "ray")
    assert ray["state"] == "ok" and ray["found"].startswith("answers: ") and "CPUs, 0 GPUs" in ray["found"]
