"""Create the buckets videos and tables on the S3 server configured in the environment, and upload the bundled clips."""

from importlib.resources import files

import fsspec

store = fsspec.filesystem("s3")
for bucket in ("videos", "tables"):
    if not store.exists(bucket):
        store.mkdir(bucket)
for clip in files("featray").joinpath("demo_clips").iterdir():
    if clip.name.endswith(".mp4"):
        store.pipe_file(f"videos/raw/{clip.name}", clip.read_bytes())
