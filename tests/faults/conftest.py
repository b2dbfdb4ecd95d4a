"""Faults are injected from outside: a `sitecustomize` on the path of the decoding child, none in the product."""

from pathlib import Path

import pytest

HOOK = '''
"""Makes decoding abort, hang, allocate or never end on files that end in a marker."""
import sys

if "featray.extract.child" in sys.orig_argv:
    import featray.extract.chunks as chunks

    real = chunks.open_decoder

    def open_decoder(backend):
        decode = real(backend)

        def hooked(file, unit, settings, account, stride):
            file.seek(-16, 2)
            marker = file.read(16).strip()
            file.seek(0)
            frames = decode(file, unit, settings, account, stride)
            for count, frame in enumerate(frames):
                yield frame
                if marker == b"FAULT:abort" and count == 2:
                    import os
                    os.abort()
                if marker == b"FAULT:hang" and count == 2:
                    while True:
                        pass
                if marker == b"FAULT:memory" and count == 2:
                    hoard = []
                    while True:
                        hoard.append(bytearray(64 << 20))
                while marker == b"FAULT:endless":
                    yield frame

        return hooked

    chunks.open_decoder = open_decoder
'''


@pytest.fixture(scope="session")
def hook_folder(tmp_path_factory) -> Path:
    """Put this on PYTHONPATH of whatever starts decoding children."""
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(HOOK)
    return folder


def marked(clip: Path, place: Path, fault: str) -> Path:
    """A copy of a clip that will cause this fault; the marker lies behind the last atom, where mp4 allows it."""
    place.write_bytes(
        clip.read_bytes() + (16).to_bytes(4, "big") + b"free" + b"\0" * 8 + f"FAULT:{fault}".ljust(16).encode()
    )
    return place


def children(hook_folder: Path) -> list[int]:
    """Process ids of the decoding children that were started with this hook: those of this test session."""
    return processes(hook_folder, b"\0featray.child\0")


def processes(mark: object, *words: bytes) -> list[int]:
    """Process ids by a word in the command; only of a test's own, whose environment holds its `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(mark).encode() in variables and any(word in command for word in words):
            found.append(int(folder.name))
    return found
