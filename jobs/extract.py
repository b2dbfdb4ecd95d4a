"""Run the main job, for `ray job submit`: python jobs/extract.py --config configs/demo.yaml [--set a.b=c]."""

from __future__ import annotations

import sys
from pathlib import Path

# The job's working directory is the repository; the cluster's Python need not have featray installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from featray.cli import main

if __name__ == "__main__":
    main(["run", *(argument.removeprefix("--config=") for argument in sys.argv[1:] if argument != "--config")])
