"""Limits and users of real machines: a command works, or ends with one line that names what is missing."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from featray.cli import main
from tests.fixtures.handmade import write_output
from tests.fixtures.runs import make_config


@pytest.fixture(scope="module")
def house():
    """Yield a folder that anyone may enter, unlike pytest's folders, with an output that anyone may read."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        write_output(folder / "out")
        yield folder


def featray(*words, limits=(), uid=None, home=True):
    """Run a command in its own process, with limits and as a user."""

    def enter():
        for kind, most in limits:
            resource.setrlimit(kind, (most, most))

    environment = {name: value for name, value in os.environ.items() if home or name != "HOME"}
    command = [sys.executable, "-m", "featray", *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 500}
    return subprocess.run(command, env=environment, user=uid, preexec_fn=enter, **streams)


def said(done):
    """Return the only line of an error; check that there is no traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("files", [8, 64])
def test_few_open_files(house, files):
    done = featray("query", house / "out", "SELECT count(*) FROM faces", limits=[(resource.RLIMIT_NOFILE, files)])
    if done.returncode:
        assert "ulimit -n" in said(done) and "tables:" not in said(done)
    else:
        assert files > 8 and done.stderr == ""


def test_no_home(house):
    assert featray("status", house / "out", home=False).returncode == 0


def test_little_address_space(house):
    done = featray("query", house / "out", "SELECT count(*) FROM faces", limits=[(resource.RLIMIT_AS, 300 << 20)])
    assert done.returncode == 0 or "ulimit -v" in said(done)


def test_small_files(house):
    """A low file size limit looks like a full disk, but `df` shows free space."""
    shutil.copytree(house / "out", house / "changed")
    done = featray("compact", house / "changed", limits=[(resource.RLIMIT_FSIZE, 100)])
    assert done.returncode == 1 and "`ulimit -f`" in said(done)


def test_a_full_disk_under_the_output_of_a_command(house):
    """`featray status OUT > file`: the output has room, so the message must name the other place."""
    words = [sys.executable, "-m", "featray", "status", str(house / "out"), "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert said(done) == "featray: standard output: No space left on device; free some space there"


def test_a_working_folder_that_was_deleted(house, tmp_path):
    def enter():
        os.chdir(tmp_path)
        tmp_path.rmdir()

    paths = {**os.environ, "PYTHONPATH": os.getcwd()}

    def featray(*words):
        tmp_path.mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "featray", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, preexec_fn=enter, env=paths)

    done = featray("plan", "clip.mp4")
    assert done.returncode == 1 and "the folder that this command was started in was deleted" in said(done)
    assert featray("status", house / "out").returncode == 0


def test_no_standard_streams(tmp_path):
    """A newly opened file must not get the number of a standard stream: output of decoders would be written into it."""
    code = (
        "import os, sys; from featray.cli import main; sys.argv = ['featray', '--version']\n"
        "main(standalone_mode=False)\n"
        f"with open({str(tmp_path / 'table')!r}, 'wb') as table: os._exit(table.fileno())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=lambda: os.closerange(0, 3))
    assert done.returncode > 2


def as_nobody(*words, umask=0o022):
    """Run a command as another user with a umask, and return its exit status and error.

    It runs in a fork, because only root may be able to read this Python's folder.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        os.umask(umask)
        done = CliRunner().invoke(main, [str(word) for word in words])
        os.write(write, json.dumps([done.exit_code, repr(done.exception), done.stderr]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        code, exception, error = json.load(answer)
    os.waitpid(child, 0)
    assert code == 0 or "SystemExit" in exception, exception
    return code, error


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user_reads_and_does_not_change(house):
    """A shared folder is used like this: one user writes, others read."""
    shutil.copytree(house / "out", house / "private")
    for command in ("status", "compact"):
        assert CliRunner().invoke(main, [command, str(house / "private")]).exit_code == 0, "with all modules it loads"
    (house / "private" / "_featray" / "commits").chmod(0o700)
    assert as_nobody("status", house / "out") == (0, "")
    for words in (["status", house / "private"], ["compact", house / "out"]):
        code, error = as_nobody(*words)
        assert code == 1 and error.count("\n") == 1, error
        assert "access denied; this user (uid 65534) lacks the rights" in error


@pytest.mark.skipif(os.getuid() != 0, reason="root may read any folder; only it may become another user")
def test_a_folder_that_cannot_be_listed_is_not_taken_as_empty(house):
    """fsspec's `find` passes over it; then this output has no videos."""
    shutil.copytree(house / "out", house / "shut")
    assert CliRunner().invoke(main, ["status", str(house / "shut")]).exit_code == 0, "with all modules it loads"
    commits = next((house / "shut" / "_featray" / "commits").glob("one/*"))
    commits.chmod(0o700)
    code, error = as_nobody("status", house / "shut")
    assert code == 1 and error.count("\n") == 1, error
    assert f"{commits}: access denied; this user (uid 65534) lacks the rights" in error


@pytest.mark.skipif(os.getuid() != 0, reason="root may read any file; only it may become another user")
def test_a_umask_that_closes_new_files_to_their_owner(house):
    weights = house / "weights.safetensors"
    assert CliRunner().invoke(main, ["models", "synth", str(weights), "--variant", "atto"]).exit_code == 0
    weights.chmod(0o644)
    assert as_nobody("models", "inspect", weights, umask=0o777) == (0, "")
    (house / "own").mkdir()
    (house / "own").chmod(0o777)
    clip = house / "clip.mp4"
    clip.write_bytes(b"is not reached")
    words = ["--out", house / "own" / "out", "--executor", "local", "--set", f"model.checkpoint={weights}"]
    code, error = as_nobody("run", clip, *words, umask=0o777)
    assert code == 1 and error.count("\n") == 1, error
    assert str(house / "own") in error
    assert "this shell's `umask` is 777" in error


@pytest.mark.long
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_run_with_few_open_files_and_no_home(house, short_clip, executor):
    config = make_config([short_clip], house / executor, cluster={"executor": executor})
    (house / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = featray("run", house / "run.yaml", "--quiet", limits=[(resource.RLIMIT_NOFILE, 64)], home=False)
    if done.returncode:
        assert "ulimit -n" in said(done) or "open files" in said(done)
    else:
        assert executor == "local"
