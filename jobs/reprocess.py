"""Process only new work, for a schedule: python jobs/reprocess.py --config configs/s3.yaml [--set a.b=c].

Like `jobs/extract.py` with short output: it processes new and changed videos, and with `--retry-failed` also those
that failed; `--drop-deleted` removes rows of videos whose source no longer exists. Its last line is JSON, and its exit
status is that of `featray run`: 0 nothing to do or all done, 3 some videos failed, 1 the run failed (for example since
another run holds the dataset: the next scheduled run resumes), 2 the config is invalid.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The job's working directory is the repository; the cluster's Python need not have featray installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from featray.cli import main

if __name__ == "__main__":
    arguments = (argument.removeprefix("--config=") for argument in sys.argv[1:] if argument != "--config")
    main(["run", "--log-line", *arguments])
