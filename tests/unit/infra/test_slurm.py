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


def test_the_image_holds_what_the_other_image_holds():
    sources = [line.split() for line in re.search(r"%files\n((?: .*\n)+)", IMAGE)[1].splitlines()]
    assert all((REPOSITORY / source).exists() and f"/source/{source}" == target for source, target in sources)
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", "featray"} == {s for s, _ in sources}
    told = dict(re.findall(r"export (\w+)=(\S+)", IMAGE))
    assert QUIET.items() <= told.items() and told["PYTHONUNBUFFERED"] == image_environment()["PYTHONUNBUFFERED"]
