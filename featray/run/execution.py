"""Run. Process the videos of a run, attempt by attempt, until all are published or given up.

pages of videos -> session -> receipts -> publish complete shards -> retry missing videos
-> land failures for the rest -> publish the rest
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from featray.config import path_field_names
from featray.errors import counted
from featray.extract.plan import Pages, VideoTask
from featray.graph import metrics
from featray.graph.rows import Receipt
from featray.run.job import Job
from featray.run.progress import Progress
from featray.run.session import Session
from featray.run.shards import open_shards, unfinished_first
from featray.run.tally import Tally
from featray.tables.commits import Commit, write_manifest
from featray.tables.lease import Lease
from featray.tables.ledger import land_lost
from featray.tables.provenance import footer
from featray.tables.publish import PublishSettings

log = logging.getLogger(__name__)


@dataclass
class Counts:
    """Counts of a run's published videos by status, frames, faces, and videos with several video streams."""

    videos_ok: int = 0
    videos_partial: int = 0
    videos_failed: int = 0
    frames: int = 0
    faces: int = 0
    several_streams: int = 0

    def add(self, commits: Iterable[Commit]) -> None:
        """Add the contents of commits. The commits are not kept, since a run may publish millions of videos."""
        for commit in commits:
            self.several_streams += commit.several_streams
            for video in commit.videos:
                setattr(self, f"videos_{video.status}", getattr(self, f"videos_{video.status}") + 1)
                self.frames += video.frames
                self.faces += video.faces

    @property
    def status(self) -> str:
        """Return `done` or `done_with_failures`."""
        return "done_with_failures" if self.videos_failed or self.videos_partial else "done"

    def by_status(self) -> dict[str, int]:
        """Return the number of videos by status: ok, partial, failed."""
        videos = {name.removeprefix("videos_"): n for name, n in asdict(self).items() if name.startswith("videos_")}
        return videos


class Execution:
    """One run's work in a session.

    Attributes:
        counts: counts of what has been published so far.
    """

    def __init__(self, job: Job, lease: Lease, session: Session, progress: Progress) -> None:
        self.counts = Counts()
        self._job, self._lease, self._session, self._progress = job, lease, session, progress
        self._partition = lease.partition
        self._tally = Tally(job.config.decode.unit_frames)
        names = path_field_names(job.config.input.path_fields or "")
        self._publishing = PublishSettings(
            run_id=job.run_id,
            tables=tuple(job.config.output.tables),
            path_fields=tuple(name for name in names if name != "name"),
            footer=footer(job.row()),
            # A derivation across shards waits until all shards are published; see `runner.run`.
            derive=None if job.derive is None or job.derive.crosses_shards else job.derive,
            embedded=job.embedded,
        )

    def run(self, todo: Iterator[VideoTask]) -> None:
        """Run videos through all stages and publish them.

        Raises:
            FeatrayError: the run as a whole failed; landed work is kept, and the next run resumes from it.
        """
        pages = open_shards(todo, self._partition, self._job.run_id, self._tally)
        self._progress.start(self._tally, self._session.workers, self._job.gpu)
        self._lease.standing = self._progress.standing
        with metrics.kept(self._gauges, dataset=self._partition.dataset):
            self._run(pages)
        metrics.record(metrics.VIDEOS_OPEN, 0, dataset=self._partition.dataset)

    def _run(self, pages: Pages) -> None:
        last = self._job.config.run.max_attempts
        for attempt in range(1, last + 1):
            self._attempt(pages, is_last=attempt == last)
            missing = self._tally.missing()
            if not missing or attempt == last:
                break
            _, example = missing[0].video.problem or ("", missing[0].video.uri)
            log.warning(
                "attempt %d of %d: no complete result of %s, such as %s; trying again",
                attempt, last, counted(len(missing), "video"), example,
            )  # fmt: skip
            self._tally.again(missing)
            pages = iter([missing])
        self._give_up_the_rest()
        self.counts.add(self._session.published(wait=True))

    def _attempt(self, pages: Pages, *, is_last: bool) -> None:
        for receipt in self._session.stream(pages, lambda rest: unfinished_first(self._tally, rest)):
            self._lease.check()
            complete = self._tally.take(receipt)
            self._note(receipt)
            # Temporary failures count only in the last attempt, or while no video has given any result.
            is_judged = is_last or not (self._tally.videos_done or self._tally.frames)
            self._stop_if_hopeless(self._tally.videos_troubled if is_judged else 0)
            if complete:
                self._session.publish(complete, self._publishing)
            self.counts.add(self._session.published(wait=False))

    def _note(self, receipt: Receipt) -> None:
        metrics.record_receipt(receipt, self._partition.dataset)
        self._progress.update()

    def _gauges(self) -> list[tuple[metrics.Metric, float]]:
        return [
            (metrics.VIDEOS_OPEN, self._tally.videos_open),
            (metrics.LEASE_RENEWED, self._lease.renewed_us / 1e6),
        ]

    def _give_up_the_rest(self) -> None:
        """Land failures for videos without a complete result, and publish the open shards."""
        self._lease.check()
        rest = self._tally.given_up()
        self._stop_if_hopeless(len(rest))
        land_lost(self._partition, rest, self._job.run_id, self._tally.problems())
        for manifest in self._tally.open_shards():
            self._session.publish(manifest, self._publishing)

    def _stop_if_hopeless(self, incomplete: int) -> None:
        """End the run if too many videos failed; `incomplete` is the number of unfinished ones that count as failed."""
        limit = self._job.config.cluster.max_failed_fraction
        if found := self._tally.too_many_failed(limit, incomplete):
            self._publish_complete()
            kept = "complete videos are published, with their rows in `errors`"
            raise found.error(limit, f"{kept}. Fix the cause and run again with --retry-failed")

    def _publish_complete(self) -> None:
        """Publish the complete videos of open shards."""
        for manifest in self._tally.complete_parts():
            write_manifest(self._partition, manifest)
            self._session.publish(manifest, self._publishing)
        self.counts.add(self._session.published(wait=True))
