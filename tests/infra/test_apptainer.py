"""infra/slurm/apptainer.def without Apptainer, which Debian does not have: its sections run in a debootstrap tree.

The tree replaces the base image: Debian bookworm with Python 3.11, as in python:3.11-slim-bookworm. %files and %post
build the image; %environment and %runscript run in it as Apptainer runs them: as an unprivileged user, on a read-only
root, with a separate home. Not covered: Apptainer's parsing of the file, its image format and --nv. The
dependencies take gigabytes and are not installed again; those of this environment are used.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.fixtures.debian import CERTIFICATES, copied
from tests.fixtures.hosts import USER_ID
from tests.fixtures.infra_files import INFRA, REPOSITORY

pytestmark = [pytest.mark.infra("debootstrap", "unshare", "chroot"), pytest.mark.timeout(3600)]

TEXT = (INFRA / "slurm/apptainer.def").read_text()
SECTIONS = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", TEXT, re.M | re.S))

_MOUNTS = """
set -e
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=1777 tmp "$1/tmp"
"""


def in_tree(tree, script, *words, mounts="", user=False):
    """Run a shell script in the tree, in a separate mount namespace."""
    as_user = f"--userspec={USER_ID}:{USER_ID}" if user else "--userspec=0:0"
    inside = f'{_MOUNTS}{mounts}\nexec env -i "${{@:4}}" chroot {as_user} "$1" /bin/sh -e -c "$2" sh $3'
    pip = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_") and "LINKS" not in name]
    plain = ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/home/lab"]
    command = ["unshare", "--mount", "bash", "-c", inside, "bash", str(tree), script, " ".join(words), *plain, *pip]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def image(debian, tmp_path_factory):
    tree = copied(debian, tmp_path_factory.mktemp("image") / "root")
    for line in SECTIONS["files"].split("\n"):
        if line.strip():
            source, target = line.split()
            place = tree / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
            copy(REPOSITORY / source, place)
    shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
    alone = SECTIONS["post"].replace("-c /source/constraints.txt /source", "--no-deps /source")
    assert alone != SECTIONS["post"]
    in_tree(tree, alone, mounts=f'mount --bind {CERTIFICATES} "$1{CERTIFICATES}"')
    (site,) = tree.glob("opt/featray/lib/python3*/site-packages")
    (site / "dependencies.pth").write_text("import site; site.addsitedir('/opt/dependencies')\n")
    (tree / "opt/dependencies").mkdir()
    (tree / "home/lab").mkdir(parents=True)
    yield tree
    shutil.rmtree(tree)


def test_the_demo_runs_in_the_image(image, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, USER_ID, USER_ID)
    mounts = "\n".join(
        [
            f'mount --bind {sysconfig.get_path("purelib")} "$1/opt/dependencies"',
            f'mount --bind {home} "$1/home/lab"',
            'mount -o remount,bind,ro "$1"',
        ]
    )
    script = f"{SECTIONS['environment']}\ncd /home/lab\n{SECTIONS['runscript']}"
    assert not (image / "source").exists()
    assert "featray, version" in in_tree(image, script, "--version", mounts=mounts, user=True)
    where = "import featray, os; print(featray.__file__, os.access('/opt', os.W_OK))"
    there = in_tree(image, f'{SECTIONS["environment"]}\npython -c "{where}"', mounts=mounts, user=True)
    assert re.fullmatch(r"/opt/featray/lib/python3\.\d+/site-packages/featray/__init__\.py False\n", there)
    assert "2 videos: 2 ok" in in_tree(image, script, "demo", mounts=mounts, user=True)
    assert {path.stat().st_uid for path in Path(home, "demo-output").rglob("*")} == {USER_ID}
