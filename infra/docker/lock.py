"""Write the lock files of the image (`make lock`): versions from constraints.txt, hashes of wheels from the index.

They are valid for CPython 3.11 on Linux, x86_64 and aarch64, as in the image's base. torch and the packages that only
torch needs are in a separate file: an image for CPUs omits it, and its layer of gigabytes is reused when another
package is updated.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
UV = Path(sysconfig.get_path("scripts")) / "uv"
MACHINES = ("x86_64", "aarch64")
GLIBC = "manylinux_2_36"  # Debian 12
OUTPUT = "--format pylock.toml"  # this format lists a package's files with their hashes
TORCH = re.compile(r"torch$|torchvision$|triton$|nvidia-|cuda-")

Locked = dict[str, tuple[str, dict[str, set[str]]]]
"""Name to version and, by machine, the sha256 of the compatible wheels."""


def resolve(*arguments: str) -> Locked:
    """Resolve with uv, constrained by constraints.txt.

    Raises:
        subprocess.CalledProcessError: uv finds no matching wheels, or cannot reach the index.
    """
    found: Locked = {}
    options = f"pip compile --quiet --constraints constraints.txt --only-binary :all: --python-version 3.11 {OUTPUT}"
    for machine in MACHINES:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "pylock.toml"
            here = ["--python-platform", f"{machine}-{GLIBC}", "--output-file", str(out)]
            subprocess.run([str(UV), *options.split(), *here, *arguments], cwd=REPOSITORY, check=True)
            packages = tomllib.loads(out.read_text())["packages"]
        for package in packages:
            _, hashes = found.setdefault(package["name"], (package["version"], {}))
            hashes[machine] = {wheel["hashes"]["sha256"] for wheel in package["wheels"]}
    return found


def resolve_each(requirements: list[str], *options: str) -> Locked:
    """Resolve these requirements; raises like `resolve`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "in.txt"
        file.write_text("\n".join(requirements))
        return resolve(str(file), *options)


def write(name: str, what: str, locked: Locked) -> None:
    """Write a requirements file for `pip install --require-hashes`."""
    lines = [f"# {what}; updated by `make lock`."]
    for package, (version, hashes) in sorted(locked.items()):
        machines = " or ".join(f"platform_machine == '{machine}'" for machine in hashes)
        where = "" if len(hashes) == len(MACHINES) else f" ; {machines}"
        every = sorted(set().union(*hashes.values()))
        lines.append(f"{package}=={version}{where}" + "".join(f" \\\n    --hash=sha256:{one}" for one in every))
    (FOLDER / name).write_text("\n".join(lines) + "\n")


def write_for_cpus(torch: Locked) -> None:
    """Write torch's builds for CPUs, from PyTorch's own index; without hashes if the index cannot be reached."""
    pins = [f"{name}=={torch[name][0]}" for name in ("torch", "torchvision")]
    try:
        found = resolve_each(pins, "--no-deps", "--torch-backend", "cpu")
    except subprocess.CalledProcessError:
        print(
            "PyTorch's index cannot be reached: torch-cpu.lock has no hashes; retry with access to it", file=sys.stderr
        )
        lines = ["# torch for CPUs, from PyTorch's own index, which `make lock` could not reach, so without hashes."]
        (FOLDER / "torch-cpu.lock").write_text("\n".join([*lines, *(f"{pin}+cpu" for pin in pins)]) + "\n")
    else:
        write("torch-cpu.lock", "torch for CPUs, from PyTorch's own index", found)


def main() -> None:
    """Write all lock files."""
    everything = resolve("pyproject.toml", "--extra", "aws")
    torch = {name: one for name, one in everything.items() if TORCH.match(name)}
    others = {name: one for name, one in everything.items() if name not in torch}
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    write("torch-cuda.lock", "torch and the CUDA that it was built with", torch)
    write("requirements.lock", "Requirements of featray[aws] besides torch", others)
    write("build.lock", "Build requirements of featray's wheel", resolve_each(build))
    write_for_cpus(torch)


if __name__ == "__main__":
    main()
