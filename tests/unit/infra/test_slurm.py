"""Slurm's scripts and the image for Apptainer, checked as text; tests/infra/test_slurm.py runs the scripts."""

import re
import subprocess

import pytest

from tests.fixtures.infra_files import INFRA, QUIET, REPOSITORY, image_environment

SCRIPTS = sorted((INFRA / "slurm").glob("*.sbatch"))
IMAGE = (INFRA / "slurm/apptainer.def").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_ask_nobody(script):
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    told = dict(
        pair.split("=", 1) for line in re.findall(r"^export (.*)", text, re.M) for pair in line.split() if "=" in pair
    )
    assert told["HF_HUB_OFFLINE"] == "1" and told["HF_HUB_DISABLE_TELEMETRY"] == told["DO_NOT_TRACK"] == "1"
    if "ray symmetric-run" in text:
        assert QUIET.items() <= told.items()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_slurm_reads_its_options_before_the_first_command(script):
    lines = [line for line in script.read_text().splitlines() if line.strip()]
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert options and max(options) < first
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append"} <= {lines[i].split()[1] for i in options}


@pytest.mark.parametrize(
    ("task", "count", "parts", "told"),
    [
        ("3", "20", "", "run my.yaml --executor local --part 3/20"),
        ("7", "1", "20", "run my.yaml --executor local --part 7/20"),
        ("", "", "", "run my.yaml --executor local"),
        ("7", "1", "", "array.sbatch: task 7 is none of 1 parts"),
        ("0", "20", "", "array.sbatch: task 0 is none of 20 parts"),
    ],
)
def test_a_task_of_an_array_is_a_part(tmp_path, task, count, parts, told):
    """With a featray that only prints its arguments, since this is about them."""
    (tmp_path / "featray").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "featray").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": count, "PARTS": parts}
    known = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | {name: one for name, one in slurm.items() if one}
    done = subprocess.run(
        ["bash", INFRA / "slurm/array.sbatch", "my.yaml"], env=known, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout + done.stderr).startswith(told) and done.returncode == (2 if "none of" in told else 0)


def test_the_image_holds_what_the_other_image_holds():
    sources = [line.split() for line in re.search(r"%files\n((?: .*\n)+)", IMAGE)[1].splitlines()]
    assert all((REPOSITORY / source).exists() and f"/source/{source}" == target for source, target in sources)
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", "featray"} == {s for s, _ in sources}
    told = dict(re.findall(r"export (\w+)=(\S+)", IMAGE))
    assert QUIET.items() <= told.items() and told["PYTHONUNBUFFERED"] == image_environment()["PYTHONUNBUFFERED"]
