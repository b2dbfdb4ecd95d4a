"""Modules loaded by a run's processes at start: the smallest machine has ten, and each loads them."""

import subprocess
import sys


def test_workers_load_nothing_heavy_but_ray_data():
    code = (
        "import sys, ray.data\n"
        "already = set(sys.modules)\n"
        "import featray.graph.pipeline, featray.tables.publish\n"
        "print({'torch', 'scipy', 'openvino', 'duckdb', 'huggingface_hub'} & (set(sys.modules) - already))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
