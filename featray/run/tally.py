"""Run. The driver's bookkeeping: which shards are complete, which videos are missing, what failed.

It takes receipts and answers questions, without access to Ray or storage. It keeps only open
shards, so its memory depends on the work in flight, not on the length of the job.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Final, NamedTuple

from featray.errors import ERROR_MEANINGS, OF_THE_VIDEO, ErrorCode, RunError, counted
from featray.extract.plan import VideoTask
from featray.graph.rows import Receipt
from featray.tables.commits import ShardManifest

_EXAMPLES: Final = 3

_ENOUGH_TO_JUDGE: Final = 20
"""Videos done before a high share of failures stops a run."""


class CommonFailure(NamedTuple):
    """The most common failure of units.

    Attributes:
        code: its error code.
        message: message of the first such failure.
        examples: URIs of some affected videos.
    """

    code: str
    message: str
    examples: list[str]


class TooManyFailed(NamedTuple):
    """Reason to end a run: `failed` of `of` videos failed, most often with the failure `common`."""

    failed: int
    of: int
    common: CommonFailure

    def error(self, limit: float, kept: str) -> RunError:
        """Return the error that ends the run; `limit` is the allowed share, `kept` says what is kept."""
        common = self.common
        return RunError(
            f"{self.failed} of {counted(self.of, 'video')} failed, more than cluster.max_failed_fraction ({limit:g}), "
            f"most often with {common.code} ({common.message}), such as {', '.join(common.examples)}; {kept}, or set "
            "the limit to 1"
        )


@dataclass
class _OpenVideo:
    task: VideoTask
    units: int | None = None
    parts: dict[int, set[int]] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    frames: Counter[int] = field(default_factory=Counter)
    problems: dict[int, str] = field(default_factory=dict)
    failed: bool = False
    damaged: bool = True
    troubled: bool = False

    def share_added(self, receipt: Receipt, unit_frames: int) -> float:
        """Return the share of the video that a receipt adds; call it before `take`.

        A unit without its last part counts as at most nine tenths done, however many frames have landed.
        """
        if receipt.unit in self.last or receipt.part in self.parts.get(receipt.unit, ()):
            return 0.0
        before = self.frames[receipt.unit]
        self.frames[receipt.unit] = unit_frames if receipt.last else min(before + receipt.frames, unit_frames * 9 // 10)
        return (self.frames[receipt.unit] - before) / unit_frames / receipt.units

    def take(self, receipt: Receipt) -> None:
        self.units = receipt.units
        self.failed = self.failed or receipt.failed
        self.damaged = self.damaged and (not receipt.failed or receipt.error_code in OF_THE_VIDEO)
        if receipt.resumed:
            self.parts[receipt.unit] = set(range(receipt.part + 1))
        else:
            self.parts.setdefault(receipt.unit, set()).add(receipt.part)
        if receipt.last:
            self.last[receipt.unit] = receipt.part

    @property
    def complete(self) -> bool:
        return self.units == len(self.last) and all(
            self.parts[unit].issuperset(range(part + 1)) for unit, part in self.last.items()
        )


@dataclass
class _OpenShard:
    manifest: ShardManifest
    waiting: dict[str, _OpenVideo]


class Tally:
    """The counts of a run. `expect` is called by the producing thread, all else by the consuming one.

    Attributes:
        bytes_done: bytes of the units that have landed; of an open unit a part, by its frames and `decode.unit_frames`.
        videos_done: complete videos, including failed ones.
        videos_failed: videos with a unit that gave no frame.
        videos_damaged: failed videos whose failure is due to the video itself.
        videos_troubled: incomplete videos with a unit that failed in this attempt and will be retried.
        frames, faces: frames and faces landed in this run.
    """

    def __init__(self, unit_frames: int = 512) -> None:
        self._unit_frames = unit_frames
        self._open: dict[str, _OpenShard] = {}
        self._lock = Lock()
        self.listed_all = False
        self.videos_expected = 0
        self.bytes_expected = 0
        self.videos_done = 0
        self.videos_failed = 0
        self.videos_damaged = 0
        self.videos_troubled = 0
        self._failures = Counter[str]()
        self._messages: dict[str, str] = {}
        self._examples: dict[str, list[str]] = {}
        self.bytes_done = 0.0
        self.frames = 0
        self.faces = 0

    @property
    def videos_open(self) -> int:
        """Return the number of listed videos that are not complete."""
        return self.videos_expected - self.videos_done

    def expect(self, manifest: ShardManifest, tasks: list[VideoTask]) -> None:
        """Add the videos of a newly opened shard."""
        with self._lock:
            self._open[manifest.shard] = _OpenShard(manifest, {t.video.video_id: _OpenVideo(t) for t in tasks})
            self.videos_expected += len(tasks)
            self.bytes_expected += sum(max(task.video.size_bytes, 0) for task in tasks)

    def expect_no_more(self) -> None:
        """Note that the last shard was opened; `videos_expected` and `bytes_expected` are now final."""
        self.listed_all = True

    def task_of(self, receipt: Receipt) -> VideoTask | None:
        """Return the task of a receipt's video; None if the video is already complete."""
        with self._lock:
            shard = self._open.get(receipt.shard)
            video = shard.waiting.get(receipt.video_id) if shard else None
            return None if video is None else video.task

    def take(self, receipt: Receipt) -> ShardManifest | None:
        """Count a receipt; return the manifest of its shard if that is now complete, else None."""
        if receipt.retry:
            self._note_trouble(receipt)
            return None
        if not receipt.resumed:
            self.frames += receipt.frames
            self.faces += receipt.faces
        with self._lock:
            shard = self._open.get(receipt.shard)
            video = shard.waiting.get(receipt.video_id) if shard else None
            if shard is None or video is None:
                return None  # a duplicate part of a video that is already complete
            self.bytes_done += max(video.task.video.size_bytes, 0) * video.share_added(receipt, self._unit_frames)
            video.take(receipt)
            if receipt.failed:
                self._note_failure(receipt, video)
            if not video.complete:
                return None
            del shard.waiting[receipt.video_id]
            self.videos_troubled -= video.troubled
            self.videos_done += 1
            self.videos_failed += video.failed
            self.videos_damaged += video.failed and video.damaged
            if shard.waiting:
                return None
            del self._open[receipt.shard]
            return shard.manifest

    def too_many_failed(self, limit: float, incomplete: int = 0) -> TooManyFailed | None:
        """Return the failures if their share exceeds `limit`, else None; `incomplete` more videos count as failed.

        Damaged videos say nothing about the others, unless all videos failed so far. Two failures among the first
        twenty of a long list say little either, so the share is relative to all listed videos.
        """
        done, failed = self.videos_done + incomplete, self.videos_failed + incomplete
        all_failed = failed == done
        judged = failed if all_failed else failed - self.videos_damaged
        known = done if all_failed else max(done, self.videos_expected)
        if done < _ENOUGH_TO_JUDGE or judged <= limit * known:
            return None
        return TooManyFailed(judged, known, self.common_failure(beyond_videos=not all_failed))

    def common_failure(self, *, beyond_videos: bool = False) -> CommonFailure:
        """Return the most common failure of units; with `beyond_videos`, without failures due to the video itself."""
        failures = Counter(
            {code: n for code, n in self._failures.items() if not (beyond_videos and code in OF_THE_VIDEO)}
        )
        if not failures:  # missing videos were lost without a receipt
            with self._lock:
                lost = [v.task.video.uri for shard in self._open.values() for v in shard.waiting.values()]
            return CommonFailure(ErrorCode.LOST, ERROR_MEANINGS[ErrorCode.LOST], lost[:_EXAMPLES])
        ((code, _),) = failures.most_common(1)
        return CommonFailure(code, self._messages[code], self._examples[code])

    def _note_trouble(self, receipt: Receipt) -> None:
        with self._lock:
            shard = self._open.get(receipt.shard)
            video = shard.waiting.get(receipt.video_id) if shard else None
            self._note_failure(receipt, video)
            if video is None:
                return
            self.videos_troubled += not video.troubled
            video.troubled = True
            if receipt.error_code == ErrorCode.INFERENCE_FAILED:
                video.problems[receipt.unit] = receipt.problem

    def _note_failure(self, receipt: Receipt, video: _OpenVideo | None) -> None:
        self._failures[receipt.error_code] += 1
        self._messages.setdefault(receipt.error_code, receipt.problem)
        examples = self._examples.setdefault(receipt.error_code, [])
        uri = video.task.video.uri if video else None
        if uri and uri not in examples and len(examples) < _EXAMPLES:
            examples.append(uri)

    def problems(self) -> dict[tuple[str, int], str]:
        """Return why the network failed on units of missing videos in this attempt, by video and unit."""
        with self._lock:
            return {
                (video_id, unit): problem
                for shard in self._open.values()
                for video_id, video in shard.waiting.items()
                for unit, problem in video.problems.items()
            }

    def missing(self) -> list[VideoTask]:
        """Return tasks of videos without a complete result for the next attempt; the ledger has what landed."""
        return [replace(task, attempt=task.attempt + 1, resume=True) for task in self.given_up()]

    def given_up(self) -> list[VideoTask]:
        """Return tasks of videos without a complete result, as last tried."""
        with self._lock:
            return [video.task for shard in self._open.values() for video in shard.waiting.values()]

    def unfinished(self) -> list[VideoTask]:
        """Return tasks of videos without a complete result, to resume in the same attempt; reset their counts."""
        with self._lock:
            tasks = [
                replace(video.task, resume=True) for shard in self._open.values() for video in shard.waiting.values()
            ]
        self.again(tasks)
        return tasks

    def again(self, tasks: list[VideoTask]) -> None:
        """Reset the counts of videos that are submitted again."""
        with self._lock:
            for task in tasks:
                waiting = self._open[task.shard].waiting
                self.videos_troubled -= waiting[task.video.video_id].troubled
                waiting[task.video.video_id] = _OpenVideo(task)

    def complete_parts(self) -> list[ShardManifest]:
        """Return the open shards reduced to their complete videos, without empty ones; all shards are then closed."""
        with self._lock:
            shards, self._open = self._open, {}
        cut = (
            replace(one.manifest, videos=[v for v in one.manifest.videos if v.video_id not in one.waiting])
            for one in shards.values()
        )
        return [manifest for manifest in cut if manifest.videos]

    def open_shards(self) -> list[ShardManifest]:
        """Return the shards that are not complete."""
        with self._lock:
            return [shard.manifest for shard in self._open.values()]
