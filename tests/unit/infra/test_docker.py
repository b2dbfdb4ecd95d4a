"""The image: what goes in is what is locked, what is copied is there, and it reports nothing."""

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib import metadata

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.fixtures.infra_files import INFRA, QUIET, REPOSITORY, image_environment, instructions, locked


def needed(name, extras=()):
    """Requirements of an installed distribution that hold here."""
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        environments = [{**default_environment(), "extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(requirement.marker.evaluate(e) for e in environments):
            yield requirement


def closure(name):
    """Everything that installing a distribution installs: canonical names."""
    found, todo = set(), [(name, ())]
    while todo:
        for requirement in needed(*todo.pop()):
            key = canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
            if key not in found:
                found.add(key)
                todo.append((requirement.name, key[1]))
    return {key for key, _ in found}


def test_the_lock_pins_everything_that_is_installed():
    pins, wanted = locked(), closure("featray")
    assert len(wanted) > 60, "the closure was walked"
    assert wanted - set(pins) == set()
    assert {name: metadata.version(name) for name in wanted} == {name: pins[name] for name in wanted}


def test_every_install_is_under_the_lock_or_without_dependencies():
    installs = [text for keyword, text in instructions() if keyword == "RUN" and "pip install" in text]
    assert len(installs) == 2
    with_dependencies, without = (shlex.split(text) for text in installs)
    assert with_dependencies[with_dependencies.index("-c") + 1] == "constraints.txt"
    assert with_dependencies[-1] == ".[aws]"
    assert "--no-deps" in without and without[-1] == "."
    assert all("--no-cache-dir" in text for text in installs)
    assert not [text for keyword, text in instructions(-1) if keyword == "RUN" and "pip" in text]


def test_no_index_is_named():
    text = (INFRA / "docker/Dockerfile").read_text()
    assert 'ARG TORCH_INDEX=""' in text
    assert set(re.findall(r"https?://[^\s\"]+", text)) == {"https://github.com/featray/featray", "http://127.0.0.1:9"}


def test_python_is_the_oldest_that_featray_takes():
    """On which all tests run; others have the unit tests."""
    arguments = dict(text.split("=", 1) for keyword, text in instructions() if keyword == "ARG" and "=" in text)
    assert f'requires-python = ">={arguments["PYTHON"]}"' in (REPOSITORY / "pyproject.toml").read_text()
    assert [text.split()[0] for keyword, text in instructions() if keyword == "FROM"] == [
        "python:${PYTHON}-slim-bookworm",
        "dependencies",
        "python:${PYTHON}-slim-bookworm",
    ]


def test_what_is_copied_is_there_and_reaches_the_build():
    rules = [r for r in (INFRA / "docker/Dockerfile.dockerignore").read_text().splitlines() if r and r[0] != "#"]
    assert rules[0] == "*"
    sources = [
        word
        for keyword, text in instructions()
        if keyword == "COPY" and "--from" not in text
        for word in text.split()[:-1]
    ]
    assert {"featray", "jobs", "configs", "constraints.txt"} <= set(sources)
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert any(fnmatchcase(source.split("/")[0], rule[1:]) for rule in rules if rule[0] == "!"), source
    assert {rule[1:] for rule in rules if rule[0] == "!"} == {source.split("/")[0] for source in sources}


def test_nobody_is_root():
    last = instructions(-1)
    assert [text for keyword, text in last if keyword == "USER"] == ["1000"]
    assert any("useradd --uid 1000 " in text for _, text in last)
    assert [text for keyword, text in last if keyword == "ENTRYPOINT"] == ['["featray"]']
    assert metadata.entry_points(group="console_scripts")["featray"].value == "featray.cli:main"


def test_the_version_is_the_package_s():
    from featray import __version__

    assert ("ARG", f"VERSION={__version__}") in instructions(-1)


def test_the_image_reports_nothing():
    assert image_environment().items() >= QUIET.items()


def test_openvino_takes_the_image_s_opt_out(tmp_path):
    """The line of the Dockerfile, run in a home of its own; then OpenVINO is asked."""
    (line,) = [text for keyword, text in instructions(-1) if keyword == "RUN" and "openvino" in text]
    (write,) = [part for part in line.split("&&") if "openvino_telemetry" in part]
    (tmp_path / "intel").mkdir()
    subprocess.run(["sh", "-c", write.replace("/home/featray", str(tmp_path))], check=True)
    ask = (
        "from openvino_telemetry.utils.opt_in_checker import OptInChecker;"
        "print(OptInChecker().check(enable_opt_in_dialog=False).name)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DECLINED"]
