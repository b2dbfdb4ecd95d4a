"""Runs the README's first ten minutes unchanged: every command of the section, in order, in an empty folder.

Two downloads are avoided: `git clone` is redirected to this working tree, and `.venv` exists before
`make` looks for it, with the packages of the tests, since installing takes gigabytes and minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from featray.tables.layout import open_output
from featray.tables.query import connect

_REPOSITORY = Path(__file__).parents[2]
_SECTION = re.search(r"^## The first ten minutes\n(.*?)^## ", (_REPOSITORY / "README.md").read_text(), re.M | re.S)[1]
_LINES = [line for block in re.findall(r"```sh\n(.*?)```", _SECTION, re.S) for line in block.splitlines()]

pytestmark = pytest.mark.skipif(
    not (shutil.which("git") and shutil.which("make")), reason="needs git and make to follow the README"
)

_VENV = """#!/bin/sh
# Run by `git clone` when it has checked out: the environment that `make` would make, without its gigabytes.
"{python}" -m venv --without-pip .venv
site="$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
pwd > "$site/a_featray.pth"
echo 'import site; site.addsitedir("{packages}")' > "$site/b_packages.pth"
printf '#!%s/.venv/bin/python\\nfrom featray.cli import main\\nmain()\\n' "$PWD" > .venv/bin/featray
chmod +x .venv/bin/featray
touch .venv/.installed
"""


def _run(*command: str, folder: Path, **options) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=550, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """Return this working tree as a repository of one commit."""
    place = tmp_path_factory.mktemp("origin") / "featray"
    away = shutil.ignore_patterns(".*", "__pycache__", "demo-output", "build", "dist", "bench-*.json", "shared")
    shutil.copytree(_REPOSITORY, place, ignore=away)
    shutil.copy(_REPOSITORY / ".gitignore", place)
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "as it is")):
        _run("git", *words, folder=place)
    return place


@pytest.fixture(scope="module")
def walked(origin, kept_cache, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Return the cloned folder, and the output of each line of the section."""
    folder, template = tmp_path_factory.mktemp("stranger"), tmp_path_factory.mktemp("template")
    (template / "hooks").mkdir()
    hook = template / "hooks" / "post-checkout"
    packages = str(Path(av.__file__).parents[1])
    hook.write_text(_VENV.format(python=sys.executable, packages=packages))
    hook.chmod(0o755)
    env = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "FEATRAY_CACHE": str(kept_cache),
        "GIT_TEMPLATE_DIR": str(template),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/featray/featray",
    }
    mark = "=== the next line ==="
    printed = _run("bash", "-euo", "pipefail", "-c", f"\necho '{mark}'\n".join(_LINES), folder=folder, env=env)
    return folder / "featray", dict(zip(_LINES, printed.split(f"{mark}\n"), strict=True))


def _printed(walked, start: str) -> str:
    (found,) = [text for line, text in walked[1].items() if line.startswith(start)]
    return found


def test_the_section_goes_from_a_clone_to_a_picture_and_a_report():
    starts = ["git clone", "make demo", ". .venv/bin/activate", "featray preview", "featray report", "featray query"]
    assert [next(i for i, line in enumerate(_LINES) if line.startswith(start)) for start in starts] == [*range(6)]


def test_what_ran_is_the_clone(walked):
    folder, _ = walked
    ran = _run(".venv/bin/python", "-c", "import featray; print(featray.__file__)", folder=folder)
    assert ran.strip() == str(folder / "featray" / "__init__.py")


def test_the_demo_finishes_and_says_what_to_do_next(walked):
    printed = _printed(walked, "make demo")
    assert "2 videos: 2 ok, 0 partial, 0 failed   567 frames   472 faces" in printed
    # It proposes the README's next commands, in the form that works without activating the environment.
    proposed = [line for line in printed.splitlines() if line.startswith(".venv/bin/featray ")]
    for line in (line for line in _LINES if line.startswith(("featray preview", "featray report"))):
        assert f".venv/bin/{line}" in proposed
    last = _run("bash", "-c", proposed[-1], folder=walked[0])
    assert "(20 rows)" in last


def test_the_picture_is_that_of_the_readme(walked):
    found = Image.open(walked[0] / "faces.jpg").convert("RGB")
    shown = Image.open(_REPOSITORY / "docs" / "pictures" / "faces.jpg").convert("RGB")
    assert found.size == shown.size
    # The band at the bottom names the video's id, which depends on its path, and the release.
    seen, expected = (np.asarray(one, np.float32)[: found.height - 40] for one in (found, shown))
    assert seen.std() > 40
    # Numbers differ between processors, so one frame may be chosen differently, which changes this by about 3.
    assert np.abs(seen - expected).mean() < 5


def test_the_report_is_about_the_demo(walked):
    page = (walked[0] / "report.html").read_text()
    assert re.search(r"<h1>demo</h1>", page) and "Synthetic weights" in page
    assert re.search(r'id="n-faces">472<', page) and page.count("data:image/jpeg;base64,") == 10
    assert ": 0.4 MB, 10 of 10 thumbnails" in _printed(walked, "featray report")


def test_the_row_in_the_readme_is_the_demos(walked):
    rows = connect(open_output(str(walked[0] / "demo-output"))).sql("SELECT * FROM faces WHERE frame_index = 100")
    (row,) = rows.to_arrow_table().to_pylist()
    text = re.search(r"```\n(video_id.*?)```", _SECTION, re.S)[1]
    shown = dict(re.findall(r"(\w+) +(-?[\d.]+)(?=\s)", text.replace("\nbox", "\n")))
    assert len(shown) == 15
    for name, value in shown.items():
        # In bf16, used on processors with AMX, numbers differ slightly.
        assert row[name] == pytest.approx(float(value), abs=0.02, rel=0.01), name
    assert row["release"].startswith("synthetic-v25-seed0-")
    assert f"some of its {len(row)} columns" in _SECTION


def test_queries_answer(walked):
    assert "(2 rows)" in _printed(walked, 'featray query demo-output "SELECT uri')
    assert "(5 rows)" in _printed(walked, 'featray query demo-output "SELECT pts_us')
    told = _run(".venv/bin/featray", "status", "demo-output", "--json", folder=walked[0])
    assert json.loads(told)["faces"] == 472
