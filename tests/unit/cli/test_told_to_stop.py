"""SIGTERM, which schedulers and container runtimes send, to a command that changes an output."""

import json
import shutil
import signal
import subprocess
import sys

STOPPED = """
import os, signal, sys, time
import featray.upkeep.compact as compact

def told_to_stop(*_):
    with compact.scratch_folder("compact"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

compact._merge_group = told_to_stop
from featray.cli import main
sys.argv = ["featray", "compact", sys.argv[1]]
main()
"""


def test_a_compaction_gives_its_lease_back_and_leaves_no_temporary_files(published, tmp_path, monkeypatch):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    shutil.copytree(published, out)
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    told = subprocess.run([sys.executable, "-c", STOPPED, str(out)], capture_output=True, text=True, timeout=120)
    assert told.returncode == 128 + signal.SIGTERM
    assert told.stderr == "featray: stopped; run the same command again to resume\n"
    (lease,) = (out / "_featray").glob("leases/**/*.json")
    assert json.loads(lease.read_text())["released"]
    assert list(scratch.iterdir()) == []
