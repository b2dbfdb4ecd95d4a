"""featray: facial behaviour at dataset scale, from videos in object storage to partitioned Parquet tables.

Importing the package loads neither Ray nor torch; `featray.cli` is the command line and
`featray.runner.run` the main job.
"""

__version__ = "0.1.0"
