"""Finish a killed run, for `ray job submit`: python jobs/publish.py s3://bucket/facial [--config run.yaml]."""

from __future__ import annotations

import sys
from pathlib import Path

# The job's working directory is the repository; the cluster's Python need not have featray installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from featray.cli import main

if __name__ == "__main__":
    main(["publish", *sys.argv[1:]])
