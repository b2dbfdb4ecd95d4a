"""Tables. One run at a time for a dataset and release: a lease, made of what object stores really have.

There is no rename, no append and no lock; there are whole PUTs, listings that show what was
written, and (S3 since 2024, local disks, most others) a PUT on the condition that nothing is
there. So leases are numbered objects, `_featray/leases/<dataset>/<release>/<number>.json`:

* **Who created the highest number holds the partition.** To take over is to create the next
  number, which one of many can do. The highest is never deleted, so it never comes again: it is a
  fencing token. Lower ones are deleted, so a claimant that was slow may create one of them again; it
  sees the higher one and gives up. A run that ends writes `released` into its own.
* **A holder renews** its object every 15 s, in a thread. One that was not renewed for 90 s may
  be taken over. Age is measured by the storage's clock only (`exclusive.age_seconds`); where a
  storage tells none, a lease that looks expired is watched for two renewals before it is taken.
* **A holder whose process is gone** is taken over at once by a run on the same machine: pid and
  the process's start time, within one boot and one pid namespace.
* **Without conditional PUT** a claim is written, and read again after 10 s: of several that
  saw the same number free, the last one to write stays. That is safe as long as no request takes
  longer than the 10 s between a claimant's look and its write (it measures that, and withdraws).

What holds when a holder is wrong about itself: a paused laptop wakes after its lease was taken
over, workers go on for a moment after their driver died. Before every upload, commit, rewrite and
deletion (of what has landed of a shard, before the first) the process that does it asks the storage
whether its number is still the highest (`HeldPartition.check`), and stops if not. Between that question and
the write lies a moment in which it could be paused. What then gets through is harmless:

* names of shards belong to their run, so that no file of another run is overwritten;
* a commit is created only where nothing is, and a run that takes over first cancels the shards
  that it finds open by creating empty commits of their names: of the two, one wins, and a shard
  is either published by the old run and respected, or cancelled and done again;
* a file that arrives late is named by no commit, is not seen by `featray query`, and is deleted by
  the next run; landed parts are the same whoever lands them; a run's own commit, published twice
  by a retried task, is found there and finished.

Nobody needs a lease to land results, since those are the same whoever lands them: a run's parts (`run/part.py`) work
beside each other without one, and publish nothing.

What is left: without conditional PUT a commit may arrive between cancelling and publishing again
(the next run finds videos twice and drops the older rows), and a rewrite of an older commit that
was held up for over 90 s between question and PUT may undo a newer one (`featray verify` tells).
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

from featray.errors import LeaseError, NotFound, StorageError
from featray.records import dump, load
from featray.store.exclusive import age_seconds, create_bytes, enforces
from featray.store.storage import delete, list_files, read_record, write_bytes
from featray.tables.holder import Holder, Standing
from featray.tables.layout import Partition

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 15.0
"""Some 6000 small PUTs a day, which cost cents."""

EXPIRY_SECONDS: Final = 90.0
"""Six missed renewals: a pause of the machine or of the storage that is no longer a hiccup, and short to wait for."""

SETTLE_SECONDS: Final = 10.0
"""Where there is no conditional PUT: between a claim and reading it again. A small PUT takes a second at worst."""

_CLAIMS = 5

_held_here: set[str] = set()
"""Tokens of the leases that this process holds now."""


@dataclass(frozen=True)
class HeldPartition(Partition):
    """A partition that a run holds. Whatever changes published tables takes one, and asks before each change.

    It can be pickled: any process of a run may ask.
    """

    number: int
    token: str

    def check(self) -> None:
        """Ask the storage whether the run still holds it.

        Raises:
            LeaseError: another run has taken over.
            StorageError: the storage does not answer; nothing is known then.
        """
        newest = _newest(self)
        if newest == self.number:
            holder = _read(self, newest)
            if holder is not None and holder.token == self.token:
                return
        if not newest:
            raise LeaseError(
                f"{_name(self)}: the output, or its lease in it, was deleted while the run was on. Nothing more is "
                "written; run again"
            )
        holder = _read(self, newest)
        by = f"run {holder.run_id} on {holder.host} (pid {holder.pid}) holds it now" if holder else "its lease is gone"
        raise LeaseError(
            f"{_name(self)}: this run was silent for too long and was taken over; {by}. "
            "Nothing more is published; what has landed is used by the run that goes on"
        )

    def delete(self, path: str) -> None:
        """Delete a file of the output, by its path below the root; asks first."""
        self.check()
        delete(self.output.root.child(path))


class UnheldPartition(HeldPartition):
    """One that nobody can take over, such as that of a folder nobody else knows of. Asks nobody."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition.output, partition.dataset, partition.release, 0, "")

    def check(self) -> None:
        """Return."""


class Lease:
    """A context manager that renews the lease of a partition and releases it at the end.

    Attributes:
        partition: what is held.
        renewed_us: when it was last taken or renewed, by this machine's clock, in microseconds since 1970.
        standing: asked at each renewal how far the run is, for `featray status`; None for what is no run.
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
            self._give_back()

    def _give_back(self) -> None:
        try:
            self._write(released=True)
        except LeaseError:
            return
        except StorageError as failure:
            try:
                delete(self.partition.lease(self._holder.number))  # a full disk: this takes no room
            except StorageError:
                log.warning("the lease could not be given back, it expires by itself: %s", failure)

    @property
    def lost(self) -> bool:
        """Return whether the last renewal found that another run has taken over. Asks nobody."""
        return self._lost is not None

    def check(self) -> None:
        """Raise what the last renewal found. Asks nobody; `partition.check` asks."""
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
                log.warning("the lease could not be renewed, which is tried again: %s", error)

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
        mine = Holder.myself(newest + 1, run_id)
        _held_here.add(mine.token)
        if _claim(partition, mine, looked):
            if _newest(partition) == mine.number:
                _tidy(partition, mine.number)
                return Lease(partition, mine)
            # The number was free because it had been taken, passed by and tidied away since we looked.
            delete(partition.lease(mine.number))
        _held_here.discard(mine.token)
    raise LeaseError(f"{_name(partition)}: other runs keep taking it; let one of them finish")


def read_holder(partition: Partition) -> Holder | None:
    """Return who holds a partition, without waiting; None if nobody does.

    Asks the storage how old the last renewal is; a holder's own clock says little about that.
    """
    newest = _newest(partition)
    holder = _read(partition, newest) if newest else None
    if holder is None or holder.released or holder.is_gone():
        return None
    try:
        age = age_seconds(partition.lease(newest), reading=True)
    except NotFound:  # given up meanwhile
        return None
    return holder if (time.time() - holder.renewed_us / 1e6 if age is None else abs(age)) <= EXPIRY_SECONDS else None


def _tidy(partition: Partition, mine: int) -> None:
    """Delete older leases, and what claimants on a disk left when they were killed over their temporary files."""
    for number in _numbers(partition):
        if number < mine:
            delete(partition.lease(number))
    folder = partition.lease()
    for path in list_files(folder):
        if path.endswith(".tmp"):
            stray = folder.child(path.rsplit("/", 1)[-1])
            with contextlib.suppress(StorageError):  # others come and go at this moment
                if (age_seconds(stray) or 0) > EXPIRY_SECONDS:
                    delete(stray)


def _claim(partition: Partition, mine: Holder, looked: float) -> bool:
    """Create the lease's object; whether it is ours."""
    place, data = partition.lease(mine.number), dump(mine)
    # A PUT whose answer was lost and that is repeated is refused because of itself: what is there decides.
    if create_bytes(place, data) and not enforces(place, data):
        late = time.monotonic() - looked > SETTLE_SECONDS
        time.sleep(SETTLE_SECONDS)
        if late:
            if _holds(partition, mine):  # withdrawn, or it would keep everybody out until it expires
                write_bytes(place, dump(replace(mine, released=True)))
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
        return  # taken over between two looks; the claim will say
    if age is None:
        age = time.time() - holder.renewed_us / 1e6 if holder else 0.0
        if age > EXPIRY_SECONDS and _is_still(partition, number):
            return
    elif age > EXPIRY_SECONDS or (age < -EXPIRY_SECONDS and _is_still(partition, number)):
        return  # dates of files can be set: one of the future would hold for as long
    raise LeaseError(_refusal(partition, holder, age))


def _is_left_over(holder: Holder) -> bool:
    """Return whether it is of a run of this process that ended and could not give it back, as the storage failed."""
    return holder.is_this_process() and holder.token not in _held_here


def _is_still(partition: Partition, number: int) -> bool:
    """Return whether a lease is not renewed in the time of two renewals: what clocks of other hosts say is no proof."""
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
    """The highest number; 0 if the partition was never held."""
    return max(_numbers(partition), default=0)


def _read(partition: Partition, number: int) -> Holder | None:
    """A lease, or None if it is not there or not readable."""
    try:
        return load(Holder, read_record(partition.lease(number)))
    except NotFound:
        return None
    except ValueError:
        return None
