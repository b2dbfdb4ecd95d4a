"""Write the lock files of the image, by `make lock`: each wheel's version from constraints.txt, its hashes from the index.

They hold for CPython 3.11 on Linux, x86_64 and aarch64: what the image's base has. Networks of Python wheels that are
not there for both get a marker. torch and what it brings are files of their own, so that an image for CPUs leaves them
out, and so that their gigabytes stay where they are when something small is renewed.
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
GLIBC = "manylinux_2_36"  # of Debian 12
TORCH = re.compile(r"torch$|torchvision$|triton$|nvidia-|cuda-")

Locked = dict[str, tuple[str, dict[str, set[str]]]]
"""Name to version and, by machine, the sha256 of the wheels that fit it."""


def resolve(arguments: list[str], machines: tuple[str, ...] = MACHINES) -> Locked:
    """Resolve with uv, under constraints.txt.

    Raises:
        subprocess.CalledProcessError: uv finds no wheels for that, or no index.
    """
    found: Locked = {}
    for machine in machines:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "pylock.toml"
            command = [str(UV), "pip", "compile", "--quiet", "--constraints", "constraints.txt", "--only-binary", ":all:"]
            command += ["--python-version", "3.11", "--python-platform", f"{machine}-{GLIBC}", "--format", "pylock.toml"]
            subprocess.run([*command, "--output-file", str(out), *arguments], cwd=REPOSITORY, check=True)
            packages = tomllib.loads(out.read_text())["packages"]
        for package in packages:
            _, hashes = found.setdefault(package["name"], (package["version"], {}))
            hashes[machine] = {wheel["hashes"]["sha256"] for wheel in package["wheels"]}
    return found


def text(locked: Locked, what: str) -> str:
    """Return a requirements file for `pip install --require-hashes`."""
    lines = [f"# {what}; `make lock` renews it."]
    for name, (version, hashes) in sorted(locked.items()):
        machines = [] if len(hashes) == len(MACHINES) else [f"platform_machine == '{one}'" for one in hashes]
        head = f"{name}=={version}" + (f" ; {' or '.join(machines)}" if machines else "")
        lines.append(" \\\n    ".join([head, *(f"--hash=sha256:{one}" for one in sorted(set().union(*hashes.values())))]))
    return "\n".join(lines) + "\n"


def write_cpu(torch: Locked) -> None:
    """Write torch's builds for CPUs, which are in an index of PyTorch's; without hashes where that is out of reach."""
    names = [f"{name}=={torch[name][0]}" for name in ("torch", "torchvision")]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.txt").write_text("\n".join(names))
        try:
            found = resolve([f"{folder}/in.txt", "--torch-backend", "cpu", "--no-deps"])
        except subprocess.CalledProcessError:
            print("torch's index for CPUs is out of reach: torch-cpu.lock has no hashes", file=sys.stderr)
            pins = "\n".join(f"{name}+cpu" for name in names)
            note = "# torch for CPUs, from PyTorch's own index. Without hashes, since that was out of reach when it was written;"
            (FOLDER / "torch-cpu.lock").write_text(f"{note}\n# `make lock` adds them where it is not.\n{pins}\n")
            return
    (FOLDER / "torch-cpu.lock").write_text(text(found, "torch for CPUs, from PyTorch's own index"))


def main() -> None:
    """Write all of them."""
    everything = resolve(["pyproject.toml", "--extra", "aws"])
    torch = {name: one for name, one in everything.items() if TORCH.match(name)}
    others = {name: one for name, one in everything.items() if name not in torch}
    (FOLDER / "torch-cuda.lock").write_text(text(torch, "torch and the CUDA that it was built with, from PyPI"))
    (FOLDER / "requirements.lock").write_text(text(others, "What featray[aws] needs beside torch"))
    write_cpu(torch)
    with tempfile.TemporaryDirectory() as folder:
        wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
        (Path(folder) / "in.txt").write_text("\n".join(wanted))
        (FOLDER / "build.lock").write_text(text(resolve([f"{folder}/in.txt"]), "What builds featray's wheel"))


if __name__ == "__main__":
    main()
