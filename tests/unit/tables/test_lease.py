"""The lease to publish: on disk, on an S3 API over HTTP, and on one without conditional requests."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import fsspec
import pytest

from featray.errors import LeaseError, OutputError, StorageError, Unreachable
from featray.store.exclusive import age_seconds, create_bytes, enforces
from featray.store.storage import exists, write_bytes
from featray.tables import lease as module
from featray.tables.layout import Partition, open_output
from featray.tables.lease import hold, read_holder
from tests.fixtures import s3

pytestmark = pytest.mark.slow

KEYS = s3.KEYS


@pytest.fixture(scope="module")
def endpoint():
    with s3.server() as url:
        fsspec.filesystem("s3", endpoint_url=url, **KEYS).mkdir("tables")
        yield url


@pytest.fixture(params=["disk", "s3", "s3 without conditions"])
def partition(request, tmp_path, monkeypatch):
    if request.param == "disk":
        yield Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
        return
    monkeypatch.setattr(module, "SETTLE_SECONDS", 1.5)
    endpoint = request.getfixturevalue("endpoint")
    proxy = s3.Proxy(endpoint, every=1 << 30, stall_seconds=0, without_headers=("if-none-match",))
    url = proxy.url if request.param.endswith("conditions") else endpoint
    options = {"endpoint_url": url, "use_listings_cache": False, **KEYS}
    yield Partition(open_output(f"s3://tables/{tmp_path.name}", options, create=True), "d", "r")
    proxy.close()


def stored(partition, number):
    return json.loads(partition.output.root.fs.cat_file(partition.lease(number).path))


def of_another_host(partition, **changes):
    """Make the newest lease belong to a process that cannot be checked from this machine."""
    number = module._newest(partition)
    there = stored(partition, number)
    write_bytes(partition.lease(number), json.dumps(there | {"machine": "m", "host": "far", **changes}).encode())


def test_what_is_there_is_not_created_again(partition, request):
    place = partition.output.internal("x")
    assert create_bytes(place, b"first")
    has_conditions = "without" not in request.node.name
    assert enforces(place, b"first") == has_conditions
    if has_conditions:
        assert not create_bytes(place, b"second")
        assert place.fs.cat_file(place.path) == b"first"


def test_the_storage_dates_objects_by_its_own_clock(partition):
    place = partition.output.internal("x")
    write_bytes(place, b"")
    time.sleep(1.1)
    assert 0.9 < age_seconds(place) < 10


def test_the_second_driver_is_told_who_holds_it(partition):
    with hold(partition, "run-1"):
        with pytest.raises(LeaseError) as caught:
            hold(partition, "run-2")
        message = str(caught.value)
        for text in ("run run-1", f"pid {os.getpid()}", "user ", "since 20", "UTC, renewed ", "expires at "):
            assert text in message
        assert "\n" not in message and caught.value.exit_code == 1
        for other in (replace(partition, dataset="e"), replace(partition, release="s")):
            with hold(other, "run-3"):
                pass
    with hold(partition, "run-2") as lease:
        lease.partition.check()
    names = [path.rsplit("/", 1)[-1] for path in partition.output.root.fs.find(partition.lease().path)]
    assert names == ["00000002.json"], "one small object stays, so that numbers never repeat"


@pytest.mark.parametrize("partition", ["s3 without conditions"], indirect=True)
def test_a_claim_that_came_too_late_is_withdrawn_and_made_again(partition, monkeypatch):
    """The claimant must not be blocked by its own earlier claim."""
    slow = [module.SETTLE_SECONDS + 0.5]

    def create(place, data):
        time.sleep(slow.pop() if slow else 0)
        return create_bytes(place, data)

    monkeypatch.setattr(module, "create_bytes", create)
    with hold(partition, "run-1") as lease:
        assert lease.partition.number == 2
        lease.partition.check()


def test_a_claimant_that_slept_does_not_get_a_number_that_was_passed_by(tmp_path, monkeypatch):
    """Between its look and its claim, others took the same number, released it, and deleted it."""
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    others = []

    def sleep_and_create(place, data):
        monkeypatch.undo()
        with hold(partition, "second"):
            pass
        others.append(hold(partition, "third"))
        return create_bytes(place, data)

    monkeypatch.setattr(module, "create_bytes", sleep_and_create)
    with pytest.raises(LeaseError, match="held by run third"):
        hold(partition, "first")
    others[0].partition.check()
    assert os.listdir(partition.lease().path) == ["00000002.json"]


@pytest.mark.parametrize("fails", ["create_bytes", "_tidy"])
def test_a_claim_that_failed_after_it_was_written_holds_nobody_up(tmp_path, monkeypatch, fails):
    """The storage took the write but answered with an error, or it refuses what follows."""
    partition, real = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r"), getattr(module, fails)

    def done_and_failed(*arguments):
        real(*arguments)
        raise StorageError("the storage fails")

    with monkeypatch.context() as patch:
        patch.setattr(module, fails, done_and_failed)
        with pytest.raises(StorageError, match="the storage fails"):
            hold(partition, "run-1")
    assert stored(partition, 1)["released"]
    with hold(partition, "run-2") as lease:
        lease.partition.check()


def test_a_storage_that_lists_late_is_named(tmp_path, monkeypatch):
    """Every listing is patched to be empty: what happens where one turns late in mid-run is not shown."""
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    monkeypatch.setattr(module, "list_files", lambda folder: [])
    with pytest.raises(OutputError, match="does not list the lease that was just written") as raised:
        hold(partition, "run-1")
    assert not isinstance(raised.value, LeaseError), "nobody holds it"


def test_of_many_at_once_one_gets_it(partition):
    gate = threading.Barrier(6)

    def contend(name):
        gate.wait()
        try:
            return hold(partition, name)
        except LeaseError:
            return None

    with ThreadPoolExecutor(6) as pool:
        leases = [lease for lease in pool.map(contend, "abcdef") if lease is not None]
    assert len(leases) == 1
    leases[0].partition.check()


def test_a_lease_that_is_not_renewed_expires(partition, monkeypatch):
    dead = hold(partition, "run-1")  # never entered, so nothing renews it
    of_another_host(partition)
    with pytest.raises(LeaseError, match=r"run run-1 \(host far"):
        hold(partition, "run-2")
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 1.0)
    time.sleep(2.2)
    with hold(partition, "run-2") as lease:
        assert stored(partition, 2)["run_id"] == "run-2"
        with pytest.raises(LeaseError, match="taken over; run run-2 on "):
            dead.partition.check()
        lease.partition.check()


def test_clocks_an_hour_apart_change_nothing(partition, monkeypatch):
    """The storage's clock decides which leases have expired, both for claims and for queries from two hosts."""
    real, real_ns = time.time, time.time_ns

    def shift(hours):
        monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 3600 * 10**9 * hours)

    shift(1)
    first = hold(partition, "run-1")
    of_another_host(partition)
    for hours in (-1, 1, 0):
        shift(hours)
        assert read_holder(partition).run_id == "run-1"
    with pytest.raises(LeaseError, match=r"held by run run-1 .*, renewed \d s ago"):
        hold(partition, "run-2")
    first.partition.check()
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 1.0)
    time.sleep(2.2)
    assert read_holder(partition) is None
    with hold(partition, "run-2") as lease:
        lease.partition.check()


def test_a_holder_that_lost_its_lease_finds_out_and_leaves_it_alone(partition, monkeypatch):
    monkeypatch.setattr(module, "RENEW_SECONDS", 4.0)  # the other run is quicker than a renewal
    with hold(partition, "run-1") as first:
        first.check()
        of_another_host(partition, released=True)  # as if it had expired
        second = hold(partition, "run-2")
        for _ in range(200):
            if first.lost:
                break
            time.sleep(0.1)
        with pytest.raises(LeaseError, match="publishes nothing more"):
            first.check()
    assert not stored(partition, 2)["released"]
    second.partition.check()


def test_a_lease_is_renewed_while_it_is_held(partition, monkeypatch):
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.2)
    with hold(partition, "run-1") as lease:
        before = stored(partition, 1)["renewed_us"]
        assert lease.renewed_us == before
        for _ in range(50):
            if lease.renewed_us > before:
                assert stored(partition, 1)["renewed_us"] >= lease.renewed_us
                return
            time.sleep(0.1)
    raise AssertionError("it was never renewed")


def test_a_storage_without_a_clock_is_watched(tmp_path, monkeypatch):
    """Local clocks may be wrong: a lease that seems to have expired is respected if it is still renewed."""
    monkeypatch.setattr(module, "age_seconds", lambda place: None)
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.2)
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    with hold(partition, "run-1") as lease:
        lease._holder = replace(lease._holder, machine="m")
        of_another_host(partition)
        monkeypatch.setattr(module, "EXPIRY_SECONDS", -1e9)
        with pytest.raises(LeaseError, match="held by run run-1"):
            hold(partition, "run-2")
    dead = hold(partition, "run-3")
    of_another_host(partition)
    with hold(partition, "run-4"):
        assert stored(partition, dead.partition.number + 1)["run_id"] == "run-4"


def test_a_dead_process_on_this_machine_is_passed_over_at_once(tmp_path):
    out = str(tmp_path / "out")
    partition = Partition(open_output(out, create=True), "d", "r")
    code = (
        "import os, signal; from featray.tables.lease import hold; from featray.tables.layout import *;"
        f"hold(Partition(open_output({out!r}), 'd', 'r'), 'run-1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not stored(partition, 1)["released"]
    with hold(partition, "run-2"):
        pass


def test_a_process_that_got_the_dead_ones_id_is_not_taken_for_it(tmp_path):
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    lease = hold(partition, "run-1")
    write_bytes(partition.lease(1), json.dumps(asdict(lease._holder) | {"pid_started": "1"}).encode())
    with hold(partition, "run-2"):
        pass


def test_a_damaged_lease_expires_too(tmp_path, monkeypatch):
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    write_bytes(partition.lease(1), b"{")
    with pytest.raises(LeaseError, match="held by another run"):
        hold(partition, "run-1")
    os.utime(partition.lease(1).path, (1, 1))
    with hold(partition, "run-1") as lease:
        assert lease.partition.number == 2


def test_a_lease_of_the_future_holds_no_longer_than_others(tmp_path, monkeypatch):
    """Dates of files are copied with them, and can be set."""
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    hold(partition, "run-1")
    of_another_host(partition)
    os.utime(partition.lease(1).path, (9e9, 9e9))
    assert module.read_holder(partition) is None
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.2)
    with hold(partition, "run-2") as lease:
        assert lease.partition.number == 2


def test_a_lease_of_the_future_that_is_renewed_is_respected(tmp_path, monkeypatch):
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.2)
    with hold(partition, "run-1"):
        of_another_host(partition)
        monkeypatch.setattr(module, "age_seconds", lambda place, **_: -1e6)
        monkeypatch.setattr(module, "_is_still", lambda *_: False)
        with pytest.raises(LeaseError, match="held by run run-1"):
            hold(partition, "run-2")


def test_an_output_that_is_deleted_before_the_end_is_no_success(tmp_path):
    partition = Partition(open_output(str(tmp_path / "out"), create=True), "d", "r")
    with pytest.raises(LeaseError, match="the output, or its lease, was deleted during the run"):
        with hold(partition, "run-1"):
            shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(("failure", "is_deleted"), [(StorageError, True), (Unreachable, False)])
def test_a_lease_that_cannot_be_released_is_deleted_if_the_storage_answers(partition, monkeypatch, failure, is_deleted):
    """A store that is down is asked eight times in minutes, each time."""
    with hold(partition, "run") as lease:

        def write(place, data):
            raise failure("no")

        monkeypatch.setattr(module, "write_bytes", write)
    assert exists(lease.partition.lease(lease.partition.number)) == (not is_deleted)
