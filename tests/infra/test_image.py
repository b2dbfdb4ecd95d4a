"""infra/docker/Dockerfile, built by buildah and run by podman, both from Debian: no daemon, no registry.

A debootstrap tree replaces the base, python:3.11-slim-bookworm. The requirements are installed from the index
by hash. torch is not: its build for CPUs is in an index that may be unreachable, and the other takes gigabytes. So the
image is built with TORCH=none, and torch and its dependencies are mounted from this environment. Not covered:
the base itself, torch's layer, and GPUs.
"""

import os
import shutil
import subprocess
import time
from importlib import metadata

import pytest

from tests.fixtures.debian import CERTIFICATES, copied
from tests.fixtures.infra_files import INFRA, REPOSITORY, locked

pytestmark = [
    pytest.mark.infra("debootstrap", "chroot", "unshare", "buildah", "podman", "crun"),
    pytest.mark.timeout(7200),
]

BUILD_SECONDS = 5400
RUN_SECONDS = 900
SITE = "/usr/local/lib/python3.11/site-packages"

# crun does not support mixed cgroups, and a machine's limits may be below podman's defaults.
_PODMAN = """
mountpoint --quiet /sys/fs/cgroup && { umount --recursive /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; }
exec podman run --rm --cgroups=disabled --network=host --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 "$@"
"""


class Engine:
    """buildah and podman with separate storage that contains a base image."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        )
        (folder / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}/ca-certificates.crt\n")
        self.environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    def __call__(self, *command, seconds=RUN_SECONDS, check=True, cwd=None):
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def make_base(self, tree):
        """Commit the tree as the base image, with Python in /usr/local as in the official image."""
        subprocess.run(["chroot", str(tree), "python3", "-m", "venv", "/usr/local"], check=True)
        container = "base"
        self("buildah", "from", "--quiet", "--name", container, "scratch")
        self("buildah", "add", "--quiet", container, str(tree), "/")
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        self("buildah", "config", "--env", f"PATH={path}", container)
        self("buildah", "commit", "--quiet", "--rm", container, "localhost/base")

    def build(self, context):
        """Build in the folder, as the Dockerfile's first lines say; return the output and the seconds that it took."""
        command = ["buildah", "bud", "--layers", "--file", "infra/docker/Dockerfile"]
        command += ["--ignorefile", "infra/docker/Dockerfile.dockerignore"]
        command += ["--build-arg", "BASE=localhost/base", "--build-arg", "TORCH=none"]
        command += [
            "--secret",
            f"id=pip.conf,src={self.folder}/pip.conf",
            "--volume",
            f"{CERTIFICATES}:{CERTIFICATES}:ro",
        ]
        start = time.monotonic()
        said = self(*command, "--tag", "localhost/featray", ".", seconds=BUILD_SECONDS, cwd=context).stdout
        return said, time.monotonic() - start

    def run(self, options, *words, check=True):
        """Run the image with these arguments."""
        sandbox = ["unshare", "--mount", "--propagation", "private", "bash", "-e", "-c", _PODMAN, "bash"]
        return self(*sandbox, *torch_mounts(), *options, "localhost/featray", *words, check=check)

    def close(self):
        """Remove everything."""
        subprocess.run(["umount", "--recursive", f"{self.folder}/graph/overlay"], check=False)
        shutil.rmtree(self.folder)


def torch_mounts():
    """Return podman's options that mount torch and its dependencies, package by package, and nothing else from here."""
    lock = (INFRA / "docker/torch-cuda.lock").read_text()
    options = []
    for name in (line.split("==")[0] for line in lock.splitlines() if "==" in line):
        found = metadata.distribution(name)
        tops = {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}
        options += [f"--volume={found.locate_file(top)}:{SITE}/{top}:ro" for top in tops]
    return sorted(set(options))


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Return a folder with the build context, as files that a test may change."""
    folder = tmp_path_factory.mktemp("context")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("featray", "jobs", "configs", "infra/docker"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def image(debian, context, tmp_path_factory):
    engine = Engine(tmp_path_factory.mktemp("engine"))
    try:
        engine.make_base(copied(debian, engine.folder / "tree"))
        shutil.rmtree(engine.folder / "tree")
        engine.said, engine.seconds = engine.build(context)
        yield engine
    finally:
        engine.close()


def inspected(engine, template):
    return engine("podman", "image", "inspect", "--format", template, "localhost/featray").stdout.strip()


def test_the_image_is_built_by_hash_and_has_no_cuda(image, record_property):
    assert f"ray-{locked()['ray']}" in image.said
    size = int(inspected(image, "{{.Size}}").splitlines()[-1])
    print(f"\nimage without torch: {size / 1e6:.0f} MB, built in {image.seconds:.0f} s")
    assert size < 2.5e9
    assert inspected(image, "{{.Config.User}}").splitlines()[-1] == "1000"
    labels = inspected(image, '{{index .Config.Labels "org.opencontainers.image.licenses"}}')
    assert "GPL-2.0-or-later" in labels and "NVIDIA" not in labels
    checked = image.run(["--entrypoint", "python"], "-m", "pip", "check", check=False).stdout
    assert "No broken requirements found" in checked, checked


def test_a_change_of_the_package_renews_no_requirement(image, context):
    with (context / "featray/version.py").open("a") as file:
        file.write("# changed\n")
    said, seconds = image.build(context)
    steps = said.split("STEP ")
    cached = {step.splitlines()[0].split(": ", 1)[1]: "--> Using cache" in step for step in steps[1:]}
    of = {end: [used for step, used in cached.items() if step.endswith(end)] for end in (".lock", ".whl")}
    assert of == {".lock": [True] * 4, ".whl": [False]}, cached  # three installations, and torch's lock copied
    shown = image.run(["--entrypoint", "bash"], "-c", f"tail -n 1 {SITE}/featray/version.py").stdout
    assert shown.splitlines()[-1] == "# changed"
    print(f"\nbuilt again after a change in featray/: {seconds:.0f} s")


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_run_in_docker_s_64_mb_of_shared_memory_on_a_read_only_root(image, executor):
    """It runs as the image's user, with only the writable folders of infra/README.md; /dev/shm is Docker's default."""
    script = """
    id -u; df --block-size=M --output=size /dev/shm | tail -1; touch /x /opt/x 2>&1 || true
    clips=$(python -c "import featray; print(featray.__path__[0])")/demo_clips
    featray run "$clips" --out /tmp/out --executor $EXECUTOR --set 'decode.sample={every: 48}'
    featray verify /tmp/out
    """
    options = ["--read-only", "--read-only-tmpfs=false", "--shm-size=64m", "--env", f"EXECUTOR={executor}"]
    # The machine may be busy with other work.
    options += ["--env", "RAY_raylet_start_wait_time_s=240", "--env", "RAY_agent_register_timeout_ms=240000"]
    options += ["--env", "RAY_worker_niceness=0"]
    options += [f"--tmpfs={path}:mode=1777" for path in ("/tmp", "/cache", "/spill")]
    start = time.monotonic()
    done = image.run([*options, "--entrypoint", "bash"], "-e", "-c", script, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.split()[:2] == ["1000", "64M"]
    assert done.stdout.count("Read-only file system") == 2, done.stdout
    assert "2 videos: 2 ok" in done.stdout, done.stdout
    print(f"\n{executor}: {time.monotonic() - start:.0f} s from `podman run` to verified tables")


def test_the_readme_s_demo_runs_in_the_image(image):
    start = time.monotonic()
    done = image.run(["--shm-size=64m"], "demo")
    assert "2 videos: 2 ok" in done.stdout, done.stdout
    print(f"\ndemo: {time.monotonic() - start:.0f} s from `podman run` to its end")
