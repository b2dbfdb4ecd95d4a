"""The number of CPUs for this process: by affinity, by a container's quota, by Slurm's share."""

import math
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from featray.graph.machine import cgroup_quota, local_cpus

COUNT = "from featray.graph.machine import local_cpus; print(local_cpus())"


def counted(*before: str, **variables: str) -> int:
    command = [*before, sys.executable, "-c", COUNT]
    return int(subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_a_process_bound_to_one_cpu_has_one():
    first = min(os.sched_getaffinity(0))
    assert counted("taskset", "--cpu-list", str(first)) == 1


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"])
def test_slurms_share_counts_where_it_is_the_least(monkeypatch, name):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    most = local_cpus()
    for told, found in (("1", 1), ("0", 1), (str(most + 7), most), ("", most), ("two", most)):
        monkeypatch.setenv(name, told)
        assert local_cpus() == found, told


def test_a_real_quota(monkeypatch):
    """The quota is set in the kernel, with either version of control groups."""
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    root = Path("/sys/fs/cgroup")
    first = (root / "cpu") if (root / "cpu").is_dir() else root
    group = first / f"featray-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text("150000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("150000")
    except OSError:
        pytest.skip("no control group can be made here: that takes root, and a CPU controller")
    try:
        join = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
        assert counted(*join) == 1
    finally:
        group.rmdir()


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"}, 3),
        ("0::/seen/from/outside\n", {"cpu.max": "200000 100000"}, 2),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, 0.5),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("0::/../../up\n", {"cpu.max": "junk"}, math.inf),
    ],
)  # fmt: skip
def test_quotas_of_both_versions(own, files, quota, tmp_path):
    """The files are made up: the test shows how they are parsed, not that a kernel writes them like this."""
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cgroup_quota(tmp_path / "root", tmp_path / "own") == quota


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cgroup_quota(tmp_path, tmp_path / "none") == math.inf
