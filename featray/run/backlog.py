"""Run. Compare the listing with the published videos: find the work, and published videos that are no longer listed.

Keeps in memory 38 bytes per published video (`tables/done.py`), 80 per new one if there are published ones, the URIs of
damaged shard files, and the other columns of the videos whose manifest row has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from featray.config import InputConfig
from featray.extract.plan import VideoTask
from featray.identity import work_keys
from featray.records import digest_of_extra
from featray.sources.expand import covers
from featray.sources.listing import Video
from featray.sources.passed import PassedOver
from featray.store.storage import delete_folder, list_folders
from featray.tables.commits import stored_commits
from featray.tables.done import Done
from featray.tables.layout import Partition
from featray.tables.tombstones import Blocked

log = logging.getLogger(__name__)

_EXAMPLES: Final = 10


class Backlog:
    """Separates videos that need work from published ones.

    Args:
        partition: the dataset and release.
        done: its published videos.
        settings: settings that change results, from `identity.result_settings`.
        retry_failed: whether failed and partial videos count as work.

    Attributes:
        published: number of input videos that needed no work, by status; `erased` videos must not be processed.
        erased: id and URI of one of the erased ones.
        renewed: new `videos.extra` of those whose manifest row has changed, by video id, by the name of the commit that
            has the video. A listing without other columns, such as that of a folder, changes nothing.
    """

    def __init__(
        self,
        partition: Partition,
        done: Done,
        settings: dict[str, object],
        *,
        retry_failed: bool,
    ) -> None:
        self._partition = partition
        self._done = done
        self._work_key = work_keys(settings)
        self._retry = ("partial", "failed") if retry_failed else ()
        self._begun: dict[str, list[str]] = {}
        self._half_read: set[str] = set()
        self._new: set[int] = set()
        self.published: dict[str, int] = {}
        self.erased: tuple[str, str] | None = None
        self.renewed: dict[str, dict[str, str]] = {}
        for name in list_folders(partition.landing()):
            self._begun.setdefault(name.partition("-")[0], []).append(name)

    def select(self, videos: Iterator[Video]) -> Iterator[VideoTask]:
        """Yield a task for each video whose work is not published; count the others."""
        done, erased = self._done, Blocked(self._partition)
        for video in videos:
            if video.problem and video.member is not None:
                self._half_read.add(video.uri)
            record = done.find(video.video_id)
            if record >= 0:
                done.see(record)
            if erasures := erased.blocking(video.video_id):
                self.published["erased"] = self.published.get("erased", 0) + 1
                self.erased = self.erased or (video.video_id, video.uri)
                if (begun := next((one for one in erasures if not one.done), None)) is not None:
                    log.warning("%s: its erasure was interrupted; finish it: %s", video.uri, begun.command)
                continue
            key = self._work_key(video.content_id)
            shard = None
            if record >= 0:
                shard, status = done.shard(record), done.status(record)
                if video.problem and status != "failed":
                    text = video.problem[1] if video.uri in video.problem[1] else f"{video.uri}: {video.problem[1]}"
                    log.warning("%s; its rows stay as they are", text)
                    self._keep(video, record)
                    continue
                if done.is_done(record, key) and status not in self._retry:
                    self._keep(video, record)
                    self._resumes(video.video_id, None)
                    continue
            resume = self._resumes(video.video_id, self._partition.landing_name(video.video_id, key))
            if record < 0 and len(done.records):
                self._new.add(int(key[:16], 16))
            yield VideoTask(video, key, shard="", resume=resume, replaces=shard)

    def _keep(self, video: Video, record: int) -> None:
        """Count a published video that needs no work, and note its other columns if they have changed."""
        status, extra = self._done.status(record), video.extra_json
        self.published[status] = self.published.get(status, 0) + 1
        if extra is not None and digest_of_extra(extra) != self._done.extra_digest(record):
            self.renewed.setdefault(self._done.shard(record), {})[video.video_id] = extra

    def _resumes(self, video_id: str, wanted: str | None) -> bool:
        """Return whether parts of this work have landed; delete what landed of other work on the video."""
        begun = self._begun.pop(video_id, [])
        for name in begun:
            if name != wanted:
                delete_folder(self._partition.landing().child(name))
        return wanted in begun

    def deleted(self, config: InputConfig, passed: PassedOver | None = None) -> Deleted:
        """Return published videos whose location was listed but which no longer exist.

        Call this after `select` is exhausted. It does not return videos of other configs that publish to the same
        dataset, unless this config's globs or prefixes cover them too. It also leaves out members of a shard file that
        was not read to its end, and the contents of skipped folders, since they may still exist.
        """
        unseen = self._done.unseen()
        found = Deleted()
        if not unseen:
            return found
        is_covered, passed = covers(config), passed or PassedOver()
        for commit in stored_commits(self._partition):
            for video in commit.videos:
                if video.video_id not in unseen or video.uri in self._half_read or passed.hides(video.uri):
                    continue
                if is_covered(video.uri):
                    found.add(commit.name, video.video_id, video.uri)
                else:
                    found.elsewhere += 1
                if int(video.work_key[:16], 16) in self._new:
                    found.moved, found.example = found.moved + 1, found.example or video.uri
        return found


@dataclass
class Deleted:
    """Videos whose source no longer exists.

    Attributes:
        videos: ids, by the name of the commit that holds them.
        count: number of videos.
        examples: some URIs.
        elsewhere: number of other published videos that are not in the input: of other configs, or no longer named by
            a manifest.
        moved: number of published videos that are not in the input, with the bytes of one that is new in it.
        example: URI of one of them.
    """

    videos: dict[str, set[str]] = field(default_factory=dict)
    count: int = 0
    examples: list[str] = field(default_factory=list)
    elsewhere: int = 0
    moved: int = 0
    example: str = ""

    def add(self, commit: str, video_id: str, uri: str) -> None:
        """Add a video."""
        self.videos.setdefault(commit, set()).add(video_id)
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(uri)
