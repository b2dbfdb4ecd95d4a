"""Loads the fixtures that tests share."""

pytest_plugins = [
    "tests.fixtures.plugin",
    "tests.fixtures.checkpoints",
    "tests.fixtures.faults",
    "tests.fixtures.runs",
    "tests.fixtures.published",
    "tests.fixtures.found_faces",
    "tests.fixtures.videos",
    "tests.fixtures.debian",
    "tests.fixtures.disks",
    "tests.fixtures.spark",
    "tests.fixtures.fitted",
    "tests.fixtures.main_job",
]
