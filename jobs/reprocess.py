"""What is new, and nothing else, for a schedule: python jobs/reprocess.py --config configs/s3.yaml [--set a.b=c].

Like `jobs/extract.py` with little to read: it takes up new and changed videos, and with `--retry-failed` those
that failed; `--drop-deleted` takes videos whose source is gone out of the tables. Its last line is JSON, and its exit
status that of `featray run`: 0 nothing to do or all done, 3 some videos failed, 1 the run failed (another
run holds the dataset, for one: the next one on the schedule goes on), 2 the config is wrong.
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
