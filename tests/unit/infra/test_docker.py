"""The image: its contents are locked, everything it copies exists, and it sends no usage reports."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from importlib import metadata

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.fixtures.infra_files import INFRA, QUIET, REPOSITORY, image_environment, instructions, locked


def needed(name, extras=()):
    """Yield the requirements of an installed distribution that apply on this platform."""
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        environments = [{**default_environment(), "extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(requirement.marker.evaluate(e) for e in environments):
            yield requirement


def closure(name, extras=()):
    """Return everything that installing a distribution installs, as canonical names."""
    found, todo = set(), [(name, tuple(extras))]
    while todo:
        for requirement in needed(*todo.pop()):
            key = canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
            if key not in found:
                found.add(key)
                todo.append((requirement.name, key[1]))
    return {key for key, _ in found}


def test_the_constraints_pin_everything_that_is_installed():
    pins, wanted = locked(), closure("featray")
    assert len(wanted) > 60, "the closure was walked"
    assert wanted - set(pins) == set()
    assert {name: metadata.version(name) for name in wanted} == {name: pins[name] for name in wanted}


def lock(name):
    """Return a lock file of the image: canonical name to version and number of hashes."""
    text = (INFRA / f"docker/{name}.lock").read_text().replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            pin, *hashes = line.split()
            assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), line
            package, version = pin.split("==")
            assert package == canonicalize_name(package)
            found[package] = version, len(hashes)
    return found


def test_the_image_s_locks_are_the_constraints_with_hashes():
    """`make lock` updates them after `make constraints`."""
    pins, torch, others, build = locked(), lock("torch-cuda"), lock("requirements"), lock("build")
    assert torch.keys() | others.keys() == closure("featray", ["aws"]) and not torch.keys() & others.keys()
    for name, (version, hashes) in [*torch.items(), *others.items()]:
        assert version == pins[name] and hashes, name
    assert {name for name, (version, _) in build.items() if pins.get(name, version) != version} == set()
    assert all(hashes for _, hashes in build.values())
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {canonicalize_name(Requirement(one).name) for one in wanted} <= build.keys()
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(build[canonicalize_name(requirement.name)][0])


def test_torch_for_cpus_is_the_same_release_without_cuda():
    cuda, cpu = lock("torch-cuda"), lock("torch-cpu")
    assert {name: version for name, (version, _) in cpu.items()} == {
        name: f"{cuda[name][0]}+cpu" for name in ("torch", "torchvision")
    }
    assert any(name.startswith("nvidia-") for name in cuda) and lock("torch-none") == {}
    assert not [name for name in lock("requirements") if name.startswith(("nvidia-", "cuda-", "torch", "triton"))]


def installs():
    """Return the commands of the image's build that make or install Python packages, by what they install."""
    found = {}
    for keyword, text in instructions():
        if keyword == "RUN" and "python -m pip" in text:
            words = shlex.split(text[text.index("python -m pip") :])
            assert "--no-deps" in words
            found[words[-1]] = words
    return found


def test_everything_is_installed_by_hash_and_as_a_wheel():
    """torch's lock for CPUs is the exception while it has no hashes; if it has one, pip requires them for all."""
    found, folder = installs(), "/opt/featray"
    torch, requirements, wheel = f"{folder}/torch.lock", f"{folder}/requirements.lock", f"{folder}/wheel/*.whl"
    assert list(found) == ["build.lock", ".", torch, requirements, wheel]
    for name in ("build.lock", requirements):
        assert found[name][-3:-1] == ["--require-hashes", "-r"]
    for name in ("build.lock", torch, requirements):
        assert found[name][found[name].index("--only-binary") + 1] == ":all:" and "--no-cache-dir" in found[name]
    assert {"wheel", "--no-index", "--no-build-isolation"} < set(found["."])
    assert "--no-index" in found[wheel]


def test_what_changes_often_comes_after_what_is_large():
    """A change of the package, or of development dependencies, rebuilds no layer of dependencies."""
    steps = [(keyword, text.split()[-1]) for keyword, text in instructions("runtime") if keyword in ("COPY", "RUN")]
    assert steps[2:] == [
        ("COPY", "/opt/featray/torch.lock"),
        ("RUN", "/opt/featray/torch.lock"),
        ("COPY", "/opt/featray/"),
        ("RUN", "/opt/featray/requirements.lock"),
        ("COPY", "/opt/featray/wheel/"),
        ("RUN", "/opt/featray/wheel/*.whl"),
        ("COPY", "/opt/featray/jobs"),
        ("COPY", "/opt/featray/configs"),
    ]
    copied = [text for keyword, text in instructions("runtime") if keyword == "COPY"]
    assert copied[1] == "infra/docker/requirements.lock /opt/featray/"
    assert [keyword for keyword, _ in instructions("runtime")][-2:] == ["ARG", "LABEL"]


def test_the_label_says_what_licences_are_inside():
    labels = {
        stage: " ".join(text for keyword, text in instructions(stage) if keyword == "LABEL")
        for stage in ("runtime", "for-none", "for-cpu", "for-cuda")
    }
    assert "licenses" not in labels["runtime"] and labels["for-cpu"] == ""
    assert instructions("for-cpu")[0][1].split()[0] == "for-none"
    assert labels["for-cuda"].replace(" AND LicenseRef-NVIDIA-Proprietary", "") == labels["for-none"]
    assert labels["for-cuda"] != labels["for-none"]
    assert instructions(-1) == [("FROM", "for-${TORCH}")]
    wheel = {file.name.split("-")[0] for file in metadata.files("av") or []}
    assert {"libx264", "libx265"} <= wheel and "GPL-2.0-or-later" in labels["for-none"]


def test_no_index_is_named():
    texts = [path.read_text() for path in (INFRA / "docker").iterdir() if path.is_file()]
    found = {url for text in texts for url in re.findall(r"https?://[^\s\"]+", text)}
    assert found == {"https://github.com/featray/featray", "http://127.0.0.1:9"}


def test_the_base_has_a_digest_and_the_oldest_python_that_featray_takes():
    """All tests run on this Python; only the unit tests run on others."""
    ((_, base),) = (text.split("=", 1) for keyword, text in instructions() if keyword == "ARG" and "BASE=" in text)
    digest = re.fullmatch(r"docker\.io/library/python:(3\.\d+)\.\d+-slim-bookworm@(sha256:[0-9a-f]{64})", base)
    assert digest and f'requires-python = ">={digest[1]}"' in (REPOSITORY / "pyproject.toml").read_text()
    stages = [text.split()[0] for keyword, text in instructions() if keyword == "FROM"]
    assert stages[:2] == ["${BASE}"] * 2 and not any("/" in stage for stage in stages)
    assert f"\nFrom: python@{digest[2]}\n" in (INFRA / "slurm/apptainer.def").read_text()


def test_what_is_copied_is_there_and_reaches_the_build():
    rules = [r for r in (INFRA / "docker/Dockerfile.dockerignore").read_text().splitlines() if r and r[0] != "#"]
    assert rules[0] == "*"
    sources = [
        word
        for keyword, text in instructions()
        if keyword == "COPY" and "--from" not in text
        for word in text.replace("${TORCH}", "*").split()[:-1]
    ]
    assert {"featray", "jobs", "configs", "infra/docker/requirements.lock"} <= set(sources)
    kept = {rule[1:] for rule in rules if rule[0] == "!"}
    for source in sources:
        assert list(REPOSITORY.glob(source)), source
        assert any(fnmatchcase(source, rule) or source.startswith(f"{rule}/") for rule in kept), source
    assert all(any(fnmatchcase(source, rule) for source in sources) for rule in kept)


def test_nobody_is_root():
    last = instructions("runtime")
    assert [text for keyword, text in last if keyword == "USER"] == ["1000"]
    assert any("useradd --uid 1000 " in text for _, text in last)
    assert [text for keyword, text in last if keyword == "ENTRYPOINT"] == ['["featray"]']
    assert metadata.entry_points(group="console_scripts")["featray"].value == "featray.cli:main"


def test_the_version_is_the_package_s():
    from featray import __version__

    assert ("ARG", f"VERSION={__version__}") in instructions("runtime")


def test_the_image_reports_nothing():
    assert image_environment().items() >= QUIET.items()


def test_openvino_takes_the_image_s_opt_out(tmp_path):
    """Runs the line of the Dockerfile in a temporary home, then asks OpenVINO."""
    (line,) = [text for keyword, text in instructions("runtime") if keyword == "RUN" and "openvino" in text]
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
