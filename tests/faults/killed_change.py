"""Repeats a change of an output, each time killed at a later step; a program run by test_killed_change.py.

    python -m tests.faults.killed_change OPERATION VIDEO_ID EVERY OPTIONS URI...

For `persons`, VIDEO_ID is replaced by two persons to be merged, separated by a comma.

Works on the first URI until it is killed before its first step, on the second until before the
step that is EVERY later, and so on. A step is a write, an upload, a deletion, or on a disk the rename that ends
a write. Prints the number of killed processes; ends when an operation completes.
"""

import json
import os
import signal
import sys

from featray.store import storage

kill_at = 0
step = 0


def counted(function):
    def hooked(*args, **kwargs):
        global step
        step += 1
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return hooked


# Patch before other modules import these functions.
for name in ("write_bytes", "upload", "delete", "delete_folder"):
    setattr(storage, name, counted(getattr(storage, name)))
os.replace = counted(os.replace)

from featray.config_derive import DeriveConfig  # noqa: E402
from featray.findings.derive import Derivation  # noqa: E402
from featray.persons.settings import PersonsSettings  # noqa: E402
from featray.tables.layout import list_partitions, open_output  # noqa: E402
from featray.upkeep.compact import compact_partition  # noqa: E402
from featray.upkeep.derive import derive_partition  # noqa: E402
from featray.upkeep.erase import erase  # noqa: E402
from featray.upkeep.finish import finish_partition  # noqa: E402
from featray.upkeep.person_edits import change_edits, merge  # noqa: E402
from featray.upkeep.persons import find_persons  # noqa: E402

OTHER = Derivation(DeriveConfig(gap_s=0.7))
"""Settings with which no run here derives."""


def change(operation, uri, options, video_id):
    output = open_output(uri, options)
    if operation == "erase":
        erase(output, video_id)
    for partition in list_partitions(output):
        if operation == "compact":
            compact_partition(partition)
        if operation == "publish":
            finish_partition(partition)
        if operation == "derive":
            derive_partition(partition, OTHER)
        if operation == "persons":
            change_edits(partition, merge(video_id.split(",")))
            find_persons(partition, PersonsSettings())


if __name__ == "__main__":
    operation, video_id, every, options, *uris = sys.argv[1:]
    for number, uri in enumerate(uris):
        kill_at = 1 + number * int(every)
        child = os.fork()
        if child == 0:
            change(operation, uri, json.loads(options), video_id)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            print(number)
            sys.exit(0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"step {kill_at}: ended with {os.waitstatus_to_exitcode(status)}")
    sys.exit("never came through; give more URIs")
