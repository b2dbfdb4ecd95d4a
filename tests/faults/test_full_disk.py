"""A storage that fills up or breaks during a run ends it; the next run gives the same tables as an undisturbed one."""

import contextlib
import shutil
import subprocess
import threading

import fsspec
import pytest
from click.testing import CliRunner

from featray.cli import main
from featray.errors import StorageError
from featray.run import runner
from featray.store.storage import write_bytes
from featray.tables.database import spill_folder
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold
from featray.tables.query import connect, run_sql
from featray.upkeep.verify import verify
from tests.fixtures import s3
from tests.fixtures.disks import FailingDisk, QuotaDisk
from tests.fixtures.runs import make_config, silent

VIDEOS = 6
TABLES = ("faces", "blendshapes", "mesh", "frames", "videos", "errors")
TIMES = {"videos": ["published_at"], "errors": ['"at"']}
KEYS = {"key": "test", "secret": "test"}
IMPATIENT = {"retries": {"max_attempts": 2, "mode": "standard"}}


@pytest.fixture(scope="module")
def videos(tmp_path_factory, short_clip):
    folder = tmp_path_factory.mktemp("videos")
    for i in range(VIDEOS):
        shutil.copy(short_clip, folder / f"{i}.mp4")
    return folder


@pytest.fixture(scope="module")
def calm_out(tmp_path_factory, videos):
    out = tmp_path_factory.mktemp("calm") / "out"
    run(videos, out, "local")
    return out


@pytest.fixture(scope="module")
def calm(calm_out):
    return rows(calm_out)


def run(videos, out, executor, options=None):
    config = make_config(
        [videos],
        out,
        output={"uri": str(out), "storage_options": options or {}},
        decode={"sample": {"every": 12}, "unit_frames": 16},
        cluster={"executor": executor},
    )
    return runner.run(config, silent())


def rows(out, options=None):
    opened = connect(open_output(str(out), options))
    found = {}
    for table in TABLES:
        kept = f"* EXCLUDE ({', '.join(['run_id', *TIMES.get(table, [])])})"
        found[table] = run_sql(opened, f"SELECT {kept} FROM {table} ORDER BY ALL").read_all().to_pylist()
    return found


def goes_on(videos, out, executor, calm, options=None):
    """Check that the next run, without a fault, publishes the missing rows, as if nothing had happened."""
    summary = run(videos, out, executor, options)
    assert summary.videos["ok"] + summary.already_published.get("ok", 0) == VIDEOS
    assert rows(out, options) == calm
    assert verify(open_output(str(out), options)).problems == []


def fills(disk, size_kib, videos, executor, calm):
    disk.remount(f"size={size_kib}k")
    with pytest.raises(StorageError, match="No space left on device"):
        run(videos, disk.place / "out", executor)
    disk.remount("size=200m")
    goes_on(videos, disk.place / "out", "local", calm)


@pytest.mark.parametrize(
    "size_kib", [pytest.param(150, marks=pytest.mark.long), 200, pytest.param(300, marks=pytest.mark.long)]
)
def test_an_output_that_fills(videos, calm, disk, size_kib):
    fills(disk, size_kib, videos, "local", calm)


def test_an_output_that_fills_under_workers_of_ray(cluster, videos, calm, disk):
    """Ray Data treats an error of a stage as an error of the video."""
    fills(disk, 200, videos, "ray", calm)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="btrfs-progs make the file system that has quotas")
def test_an_output_whose_quota_is_used_up(videos, calm, disk, tmp_path):
    limited = QuotaDisk(tmp_path / "limited", 350)
    try:
        with pytest.raises(StorageError, match="Disk quota exceeded"):
            run(videos, limited.place / "out", "local")
        limited.limit("none")
        goes_on(videos, limited.place / "out", "local", calm)
    finally:
        limited.close()


@contextlib.contextmanager
def after_the_first_landed(out, happens):
    """After the first unit has landed, call `happens` until it succeeds, in a thread."""

    def go():
        while not any(out.glob("_featray/landing/*/*/*/u*")):
            if stopped.wait(0.02):
                return
        while not stopped.is_set():
            with contextlib.suppress(subprocess.CalledProcessError):
                happens()
                return

    stopped = threading.Event()
    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_an_output_that_is_deleted(videos, calm, tmp_path):
    """Nothing is written at its old path, where it would look like another output."""
    out = tmp_path / "out"
    with (
        after_the_first_landed(out, lambda: out.rename(tmp_path / "away")),
        pytest.raises(StorageError, match=rf"{out}.* (is gone|was deleted)"),
    ):
        run(videos, out, "local")
    assert not out.exists()
    goes_on(videos, out, "local", calm)


@pytest.mark.long
def test_an_output_whose_device_fails(videos, calm, disk, tmp_path):
    failing = FailingDisk(tmp_path / "failing")
    try:
        with (
            after_the_first_landed(failing.place / "out", failing.fail),
            # ext4 reports EIO as such, or one of these errors if it could not read its own blocks.
            pytest.raises(StorageError, match=r"Input/output error|Cannot allocate memory|Structure needs cleaning"),
        ):
            run(videos, failing.place / "out", "local")
        failing.heal()
        goes_on(videos, failing.place / "out", "local", calm)
    finally:
        failing.close()


def test_an_output_that_turns_read_only(videos, calm, disk):
    """The remount is refused and retried as long as a file is open for writing."""
    out = disk.place / "out"
    with (
        after_the_first_landed(out, lambda: disk.remount("ro")),
        pytest.raises(StorageError, match="Read-only file system"),
    ):
        run(videos, out, "local")
    disk.remount("rw")
    goes_on(videos, out, "local", calm)


def test_a_temporary_folder_that_fills(videos, calm, disk, tmp_path, monkeypatch):
    disk.remount("size=64k")
    monkeypatch.setattr("tempfile.tempdir", str(disk.place))
    with pytest.raises(StorageError, match=f"{disk.place}: .*No space left on device.*; set TMPDIR to"):
        run(videos, tmp_path / "out", "local")
    disk.remount("size=200m")
    goes_on(videos, tmp_path / "out", "local", calm)


@pytest.mark.parametrize(
    "words",
    [
        "derive OUT --set derive.gap_s=0.7",
        "export OUT --video 0.mp4 --format csv --out FILE",
        "export OUT --video 0.mp4 --format parquet --out FILE",
        "export OUT --summary parquet --out FILE",
        "preview OUT --video 0.mp4 --frames 4 --out FILE.png",
        "preview OUT --video 0.mp4 --out FILE.mp4",
    ],
)
def test_a_full_temporary_folder_is_named(words, calm_out, disk, tmp_path, monkeypatch):
    shutil.copytree(calm_out, tmp_path / "out")
    made = tmp_path / "made"
    made.mkdir()
    words = words.replace("OUT", str(tmp_path / "out")).replace("FILE", str(made / "file")).split()
    disk.remount("size=4k")
    monkeypatch.setattr("tempfile.tempdir", str(disk.place))
    (disk.place / "full").write_bytes(bytes(4096))
    spill_folder.cache_clear()
    done = CliRunner().invoke(main, words)
    spill_folder.cache_clear()  # as the end of a process does
    assert done.exit_code == 1, done.output
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"featray: {disk.place}: "), done.stderr
    assert done.stderr.endswith("No space left on device); set TMPDIR to a folder with room\n"), done.stderr
    assert [*made.iterdir(), *disk.place.iterdir()] == [disk.place / "full"]
    disk.remount("size=200m")
    assert CliRunner().invoke(main, words).exit_code == 0
    assert verify(open_output(str(tmp_path / "out"))).problems == []


def test_a_lease_on_a_disk_that_fails_is_no_second_message(disk, caplog):
    partition = Partition(open_output(str(disk.place / "out"), create=True), "d", "r")
    with pytest.raises(StorageError, match="Read-only"), hold(partition, "compact-1") as lease:
        disk.remount("ro")
        write_bytes(lease.partition.shard("a"), b"{}")
    assert caplog.records == []


def test_a_query_that_fits_neither_into_memory_nor_into_the_temporary_folder(calm_out, disk, monkeypatch):
    disk.remount("size=5m")
    monkeypatch.setattr("tempfile.tempdir", str(disk.place))
    spill_folder.cache_clear()
    rows = "SELECT md5(range::VARCHAR) AS a, md5((range + 1)::VARCHAR) AS b FROM range(4000000)"
    numbered = f"SELECT b, row_number() OVER (ORDER BY a) AS n FROM ({rows})"
    sql = f"SET memory_limit = '60MB'; SELECT max(b) FROM ({numbered}) WHERE n % 2 = 0"
    done = CliRunner().invoke(main, ["query", str(calm_out), sql])
    spill_folder.cache_clear()
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert done.stderr.startswith("featray: query: too large for the memory and for TMPDIR (Out of Memory Error: ")
    assert list(disk.place.iterdir()) == []


def test_a_recording_needs_no_temporary_folder_and_a_full_disk_is_named(calm_out, disk, monkeypatch):
    """Rerun's own file writer would wait forever."""
    pytest.importorskip("rerun", reason="Rerun is not installed: pip install 'featray[view]'")
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    words = ["view", str(calm_out), "--video", "0.mp4", "--save", str(disk.place / "a.rrd")]
    disk.remount("size=40k")
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1, done.output
    assert f"{disk.place}/a.rrd: cannot be read or written (No space left on device)" in done.stderr
    assert list(disk.place.iterdir()) == []
    disk.remount("size=200m")
    assert CliRunner().invoke(main, words).exit_code == 0
    assert (disk.place / "a.rrd").stat().st_size > 40 << 10


@pytest.fixture(scope="module")
def bucket():
    with s3.server() as url:
        store = fsspec.filesystem("s3", endpoint_url=url, **KEYS)
        store.mkdir("bucket")
        yield url


def refuses(bucket, status, code, words, videos, executor, calm):
    proxy = s3.Proxy(bucket, every=10**9, stall_seconds=0)
    out = f"s3://bucket/{executor}-{status}"
    options = {"endpoint_url": proxy.url, "config_kwargs": IMPATIENT, **KEYS}
    try:
        proxy.refusal, proxy.writes_let_through = (status, code), 8
        with pytest.raises(StorageError, match=words):
            run(videos, out, executor, options)
        proxy.refusal = None
        goes_on(videos, out, executor, calm, options)
    finally:
        proxy.close()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "access denied"),
        (503, "SlowDown", "overloaded or down for the moment"),
        pytest.param(507, "QuotaExceeded", "cannot be read or written", marks=pytest.mark.long),
    ],
)
def test_a_store_that_refuses_to_write(bucket, videos, calm, status, code, words):
    refuses(bucket, status, code, words, videos, "local", calm)


@pytest.mark.long  # for workers, this is the same error as a full disk
def test_a_store_that_refuses_to_write_under_workers_of_ray(cluster, bucket, videos, calm):
    refuses(bucket, 503, "SlowDown", "overloaded or down for the moment", videos, "ray", calm)
