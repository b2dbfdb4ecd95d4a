"""Tables. One run at a time per dataset and release: a lease built from the operations that object stores have.

Object stores have no rename, no append and no lock. They have whole PUTs, listings that show
what was written, and (S3 since 2024, local disks, most others) a PUT that succeeds only if the
object does not exist. Leases are therefore numbered objects,
`_featray/leases/<dataset>/<release>/<number>.json`:

* **The creator of the highest number holds the partition.** To take over, a run creates the next
  number; only one of several can succeed. The highest number is never deleted, so it is never
  reused: it is a fencing token. Lower numbers are deleted, so a slow claimant may create one of
  them again; it then sees the higher number and gives up. When a run ends, it writes `released`
  into its lease.
* **A holder renews** its lease every 15 s, in a thread. A lease that was not renewed for 90 s may
  be taken over. Age is measured only by the storage's clock (`exclusive.age_seconds`); if the
  storage does not report it, a lease that looks expired is watched for two renewals first.
* **A holder whose process is dead** is taken over at once by a run on the same machine. The
  process is identified by pid and start time, within one boot and one pid namespace.
* **Without conditional PUT**, a claim is written and read again after 10 s: if several claimants
  saw the same number free, the last writer wins. This is safe as long as no request takes longer
  than the 10 s between a claimant's look and its write (it measures that, and withdraws).

A holder may not know that it has lost its lease: a suspended laptop wakes up after a takeover, or
workers continue briefly after their driver died. Therefore, before every upload, commit, rewrite
and deletion (before the first deletion, for the landing of a shard), the process asks the storage
whether its number is still the highest (`HeldPartition.check`), and stops if not. It could be
paused between this check and the write. Such late writes are harmless:

* Names of shards include their run, so no file of another run is overwritten.
* A commit is only created if none exists, and a run that takes over first cancels the open shards
  by creating empty commits of their names. One of the two wins: a shard is either published by
  the old run and respected, or cancelled and processed again.
* A late file is named by no commit, is not visible to `featray query`, and is deleted by the next
  run. Landed parts are the same whichever run lands them. A run's own commit, published twice by
  a retried task, is found and finished.

Landing results needs no lease, because they are the same whichever run lands them: a run's parts (`run/part.py`) work
in parallel without one, and publish nothing.

Two gaps remain. Without conditional PUT, a commit may arrive between cancelling and publishing again (the next run
finds videos twice and drops the older rows). And a rewrite of an older commit that is delayed by more than 90 s between
check and PUT may undo a newer one (`featray verify` reports that).
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

from featray.errors import LeaseError, NotFound, OutputError, StorageError, Unreachable
from featray.records import dump, load
from featray.store.exclusive import age_seconds, create_bytes, enforces
from featray.store.storage import delete, list_files, read_record, write_bytes
from featray.tables.holder import Holder, Standing
from featray.tables.layout import Partition

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 15.0
"""About 6000 small PUTs per day, which cost cents."""

EXPIRY_SECONDS: Final = 90.0
"""Six missed renewals: longer than a short interruption of machine or storage, but still a short wait."""

SETTLE_SECONDS: Final = 10.0
"""Without conditional PUT, time between a claim and reading it again. A small PUT takes at most about a second."""

_CLAIMS = 5

_held_here: set[str] = set()
"""Tokens of the leases that this process currently holds."""


@dataclass(frozen=True)
class HeldPartition(Partition):
    """A partition whose lease a run holds. All code that changes published tables takes one and checks it first.

    It can be pickled, so that any process of a run can check it.
    """

    number: int
    token: str

    def check(self) -> None:
        """Ask the storage whether the run still holds the lease.

        Raises:
            LeaseError: another run has taken over.
            StorageError: the storage does not answer, so this is unknown.
        """
        newest = _newest(self)
        holder = _read(self, newest) if newest else None
        if holder is not None and holder.token == self.token:
            return
        if holder is None and not _newest(self):
            raise LeaseError(
                f"{_name(self)}: the output, or its lease, was deleted during the run. Nothing more is written; run "
                "again",
                deleted=True,
            )
        by = f"run {holder.run_id} on {holder.host} (pid {holder.pid}) holds it now" if holder else "its lease is gone"
        raise LeaseError(
            f"{_name(self)}: this run did not renew its lease in time and was taken over; {by}. "
            "This run publishes nothing more; the other run uses what has landed"
        )

    def delete(self, path: str) -> None:
        """Delete a file of the output, given its path below the root; check the lease first."""
        self.check()
        delete(self.output.root.child(path))


class UnheldPartition(HeldPartition):
    """A partition that cannot be taken over, such as one in a private folder. Its check does nothing."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition.output, partition.dataset, partition.release, 0, "")

    def check(self) -> None:
        """Do nothing."""


class Lease:
    """A context manager that renews the lease of a partition and releases it at the end.

    Attributes:
        partition: the held partition.
        renewed_us: when it was last taken or renewed, by this machine's clock, in microseconds since 1970.
        standing: called at each renewal for the run's progress, for `featray status`; None if the holder is not a run.
    """

    standing: Callable[[], Standing] | None = None

    def __init__(self, partition: Partition, holder: Holder) -> None:
        self.partition = HeldPartition(
            partition.output, partition.dataset, partition.release, holder.number, holder.token
        )
        self.renewed_us = holder.renewed_us
        self._holder = holder
        self._lost: LeaseError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="featray-lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        _held_here.discard(self._holder.token)
        if not self.lost:
            self._give_back(unless=error)
        if kind is None and self._lost is not None and self._lost.details.get("deleted"):
            raise self._lost  # what was done is gone; of a takeover at the very end, the other run knows all

    def _give_back(self, unless: BaseException | None) -> None:
        """Release the lease; a failure is a warning, unless the same storage has just failed."""
        try:
            self._write(released=True)
        except LeaseError:
            return
        except StorageError as failure:
            if not isinstance(failure, Unreachable):  # which would only be waited for again
                with contextlib.suppress(StorageError):
                    delete(self.partition.lease(self._holder.number))  # works on a full disk
                    return
            level = logging.DEBUG if isinstance(unless, StorageError) else logging.WARNING
            log.log(level, "the lease could not be released; it expires by itself: %s", failure)

    @property
    def lost(self) -> bool:
        """Return whether the last renewal found that another run has taken over. Sends no request."""
        return self._lost is not None

    def check(self) -> None:
        """Raise the error of the last renewal, if any. Sends no request, unlike `partition.check`."""
        if self._lost is not None:
            raise self._lost

    def _renew(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                self._write()
            except LeaseError as error:
                self._lost = error
                return
            except StorageError as error:
                log.warning("the lease could not be renewed; trying again: %s", error)

    def _write(self, *, released: bool = False) -> None:
        try:
            self.partition.check()
        except LeaseError as error:
            self._lost = error
            raise
        standing = self.standing() if self.standing else None
        record = replace(self._holder, renewed_us=time.time_ns() // 1000, released=released, standing=standing)
        write_bytes(self.partition.lease(record.number), dump(record))
        self.renewed_us = record.renewed_us


def hold(partition: Partition, run_id: str) -> Lease:
    """Take the lease of a partition; use it as a context manager.

    Raises:
        LeaseError: another run holds it; the message says who, since when, and when it expires.
    """
    for _ in range(_CLAIMS):
        looked = time.monotonic()
        newest = _newest(partition)
        if newest:
            _refuse_if_held(partition, newest)
        if (lease := _take(partition, Holder.myself(newest + 1, run_id), looked)) is not None:
            return lease
    raise LeaseError(f"{_name(partition)}: other runs keep taking it; let one of them finish")


def _take(partition: Partition, mine: Holder, looked: float) -> Lease | None:
    """Claim a number that was free at `looked`; return None if another run was faster.

    If that fails, the claim is withdrawn: the storage may have taken it, and it would hold the partition until it
    expires.
    """
    _held_here.add(mine.token)
    try:
        if _claim(partition, mine, looked):
            newest = _newest(partition)
            if newest == mine.number:
                _tidy(partition, mine.number)
                return Lease(partition, mine)
            if newest < mine.number and _holds(partition, mine):
                raise OutputError(
                    f"{_name(partition)}: the storage does not list the lease that was just written to it; an output "
                    "needs a storage whose listings show at once what was written"
                )
            # The number was free because it was taken, superseded and deleted after we looked.
            delete(partition.lease(mine.number))
    except BaseException:
        _held_here.discard(mine.token)
        _withdraw(partition, mine)
        raise
    _held_here.discard(mine.token)
    return None


def _withdraw(partition: Partition, mine: Holder) -> None:
    """Release a claim if it was written; a storage that fails now too lets it expire."""
    with contextlib.suppress(StorageError):
        if _holds(partition, mine):
            write_bytes(partition.lease(mine.number), dump(replace(mine, released=True)))


def read_holder(partition: Partition) -> Holder | None:
    """Return the holder of a partition, without waiting; None if there is none.

    The storage reports the age of the last renewal, because a holder's clock is not reliable.
    """
    newest = _newest(partition)
    holder = _read(partition, newest) if newest else None
    if holder is None or holder.released or holder.is_gone():
        return None
    try:
        age = age_seconds(partition.lease(newest), reading=True)
    except NotFound:  # released meanwhile
        return None
    return holder if (time.time() - holder.renewed_us / 1e6 if age is None else abs(age)) <= EXPIRY_SECONDS else None


def _tidy(partition: Partition, mine: int) -> None:
    """Delete older leases, and temporary files of killed claimants on a disk."""
    for number in _numbers(partition):
        if number < mine:
            delete(partition.lease(number))
    folder = partition.lease()
    for path in list_files(folder):
        if path.endswith(".tmp"):
            stray = folder.child(path.rsplit("/", 1)[-1])
            with contextlib.suppress(StorageError):  # other claimants create and delete files meanwhile
                if (age_seconds(stray) or 0) > EXPIRY_SECONDS:
                    delete(stray)


def _claim(partition: Partition, mine: Holder, looked: float) -> bool:
    """Create the lease's object; return whether it is ours."""
    place, data = partition.lease(mine.number), dump(mine)
    # A PUT repeated after a lost answer is refused because of itself, so read the object to decide.
    if create_bytes(place, data) and not enforces(place, data):
        late = time.monotonic() - looked > SETTLE_SECONDS
        time.sleep(SETTLE_SECONDS)
        if late:
            _withdraw(partition, mine)  # or the claim would block everyone until it expires
            return False
    return _holds(partition, mine)


def _holds(partition: Partition, mine: Holder) -> bool:
    holder = _read(partition, mine.number)
    return holder is not None and holder.token == mine.token


def _refuse_if_held(partition: Partition, number: int) -> None:
    holder = _read(partition, number)
    if holder is not None and (holder.released or holder.is_gone() or _is_left_over(holder)):
        return
    try:
        age = age_seconds(partition.lease(number))
    except NotFound:
        return  # taken over meanwhile; the claim will decide
    if age is None:
        age = time.time() - holder.renewed_us / 1e6 if holder else 0.0
        if age > EXPIRY_SECONDS and _is_still(partition, number):
            return
    elif age > EXPIRY_SECONDS or (age < -EXPIRY_SECONDS and _is_still(partition, number)):
        return  # dates of files can be set: one of the future would hold for as long
    raise LeaseError(_refusal(partition, holder, age))


def _is_left_over(holder: Holder) -> bool:
    """Return whether it is of an ended run of this process that could not release it because the storage failed."""
    return holder.is_this_process() and holder.token not in _held_here


def _is_still(partition: Partition, number: int) -> bool:
    """Return whether a lease is not renewed for two renewal periods: the clocks of other hosts are no proof."""
    before = _read(partition, number)
    time.sleep(2 * RENEW_SECONDS)
    return _read(partition, number) == before


def _refusal(partition: Partition, holder: Holder | None, age: float) -> str:
    expires = datetime.fromtimestamp(time.time() + EXPIRY_SECONDS - age, UTC)
    who = "another run"
    if holder is not None:
        since = datetime.fromtimestamp(holder.since_us / 1e6, UTC)
        who = f"run {holder.run_id} (host {holder.host}, pid {holder.pid}, user {holder.user}) since {since:%F %T} UTC"
    return (
        f"{_name(partition)}: held by {who}, renewed {max(age, 0):.0f} s ago; let it finish, or end it: "
        f"without another renewal the lease expires at {expires:%T} UTC"
    )


def _name(partition: Partition) -> str:
    return f"{partition.output.root.uri}: dataset {partition.dataset}, release {partition.release}"


def _numbers(partition: Partition) -> list[int]:
    names = (path.rsplit("/", 1)[-1] for path in list_files(partition.lease()))
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"([0-9]{8}|[1-9][0-9]{8,14})\.json", name))


def _newest(partition: Partition) -> int:
    """Return the highest number; 0 if the partition was never held."""
    return max(_numbers(partition), default=0)


def _read(partition: Partition, number: int) -> Holder | None:
    """Return a lease; None if it does not exist or is not readable."""
    try:
        return load(Holder, read_record(partition.lease(number)))
    except NotFound:
        return None
    except ValueError:
        return None
