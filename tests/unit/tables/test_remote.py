"""Reading an output in a bucket: the number of requests to the storage."""

from collections import Counter

import fsspec
import pytest

from featray.errors import OutputError, StorageError
from featray.tables.layout import open_output
from featray.tables.query import connect, run_sql
from featray.tables.status import read_status
from featray.upkeep.verify import verify
from tests.fixtures import s3
from tests.fixtures.handmade import write_output

OPTIONS = {"key": "test", "secret": "test"}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Yield the hand-made output in a bucket, its rows, and the server's log with one line per request."""
    folder = tmp_path_factory.mktemp("made")
    rows = write_output(folder / "out")
    with s3.server(folder / "log") as url:
        fs = fsspec.filesystem("s3", endpoint_url=url, **OPTIONS)
        fs.mkdir("bucket")
        fs.put(str(folder / "out"), "bucket/out", recursive=True)
        yield open_output("s3://bucket/out", {"endpoint_url": url, **OPTIONS}), rows, folder / "log"


def asked(log, since=0):
    """Return the number of requests for tables' files, by method."""
    lines = log.read_text(errors="replace").splitlines()[since:]
    return Counter(("HEAD" if "HEAD /" in line else "GET") for line in lines if ".parquet HTTP" in line)


def test_files_are_listed_and_not_asked_for_one_by_one(bucket):
    output, rows, log = bucket
    since = len(log.read_text(errors="replace").splitlines())
    connection = connect(output)
    found = run_sql(connection, "SELECT count(*) AS n FROM faces").read_all().to_pylist()
    assert found == [{"n": len(rows["faces"])}]
    requests = asked(log, since)
    assert requests["HEAD"] == 0 and requests["GET"] > 0


def test_status_opens_no_faces(bucket):
    output, _, log = bucket
    since = len(log.read_text(errors="replace").splitlines())
    assert read_status(output)["videos"] == {"ok": 2, "partial": 2, "failed": 1}
    assert asked(log, since)["GET"] > 0
    assert "/out/faces/" not in "".join(log.read_text(errors="replace").splitlines()[since:])


def test_verify_asks_for_no_file_one_by_one(bucket):
    output, _, log = bucket
    since = len(log.read_text(errors="replace").splitlines())
    assert verify(output).files > 10
    assert asked(log, since)["HEAD"] == 0


def test_a_published_file_that_is_gone_is_said(bucket):
    output, _, _ = bucket
    path = output.root.fs.find(output.table("errors").path)[0]
    output.root.fs.rm_file(path)
    with pytest.raises(StorageError, match="a published file is gone or damaged; run `featray verify`"):
        connect(output)
    missing = [problem.file for problem in verify(output).problems if "but it is missing" in problem.text]
    assert missing == [output.relative(path)]


def test_an_output_that_is_deleted_after_it_was_opened_is_not_an_empty_one(bucket):
    output, _, _ = bucket
    output.root.fs.rm("bucket/out", recursive=True)
    for reading in (connect, read_status, verify):
        with pytest.raises(OutputError, match=r"^s3://bucket/out: was deleted meanwhile$"):
            reading(output)
