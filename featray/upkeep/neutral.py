"""Upkeep. Find the neutral videos of a release, and decide which shards must be derived again because of them.

For each shard, a derivation with `baseline: neutral` needs the published neutral videos that share a key with one of
its videos. They are identified by `videos.extra` and the path fields. The commit stores a digest per key of the neutral
videos that its rows were made from. If the digest differs from the current one (a neutral video was added, replaced or
erased, or lost a track), the shard is derived again. Rows therefore depend on what is published, and not on the order
of publishing.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow.parquet as pq

from featray.config_derive import NeutralConfig
from featray.errors import on_one_line, shown
from featray.findings.batch import Levels
from featray.findings.derive import Derivation
from featray.findings.neutral import Mark, Rest, SpansUs, pooled, read_mark, read_rest
from featray.findings.rows import Rows
from featray.records import read_extra
from featray.tables.commits import Commit, CommittedVideo
from featray.tables.derived import open_sources
from featray.tables.layout import Partition
from featray.tables.rewrite import open_parquet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A neutral video.

    Attributes:
        commit: the commit that holds it.
        spans_us: its neutral spans.
        identity: digest of its published state and these spans.
    """

    video_id: str
    commit: str
    spans_us: SpansUs
    identity: str


@dataclass
class NeutralVideos:
    """The neutral videos of a partition, as currently published.

    Attributes:
        columns: names of the videos' manifest columns and path fields, collected until a neutral video is found.
        values: some values of the column that marks neutral videos, as long as none is found.
        without_key: whether a video is marked as neutral, but the text that identifies its person is missing.
        sources: as in `Baselines`.
    """

    partition: Partition
    derivation: Derivation
    columns: set[str] = field(default_factory=set)
    values: set[str] = field(default_factory=set)
    without_key: bool = False
    sources: str = "neutral videos"
    _keys: dict[str, dict[str, str]] = field(default_factory=dict)
    _sources: dict[str, list[Source]] = field(default_factory=dict)
    _commits: dict[str, Commit] = field(default_factory=dict)
    _rests: dict[str, Rest] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """Return the number of neutral videos."""
        return sum(map(len, self._sources.values()))

    def look(self, commits: Iterable[Commit]) -> NeutralVideos:
        """Find neutral videos in the commits of the partition, and the key of each; reads one small column."""
        for commit in commits:
            published = {video.video_id: video for video in commit.videos}
            keys = self._keys[commit.name] = {}
            for video_id, mark in self._marks(commit):
                self.without_key |= bool(mark.spans_us) and mark.key is None
                if mark.key is not None:
                    keys[video_id] = sys.intern(mark.key)
                if mark.spans_us and mark.key is not None and video_id in published:
                    identity = published_identity(published[video_id], repr(mark.spans_us))
                    source = Source(video_id, commit.name, mark.spans_us, identity)
                    self._sources.setdefault(mark.key, []).append(source)
                    self._commits.setdefault(commit.name, replace(commit, videos=[], rewrites=[]))
        for sources in self._sources.values():
            sources.sort(key=lambda source: source.video_id)
        return self

    def is_current(self, commit: Commit) -> bool:
        """Return whether the rows of a scanned commit were made from the current neutral videos."""
        made_from = commit.derived_from.get(self.derivation.name, {})
        return all(made_from.get(whose) == what for whose, what in self._made_from(self._keys[commit.name]).items())

    def derivation_of(self, commit: Commit) -> Derivation:
        """Return the derivation of a scanned commit, with its videos' baselines; reads the faces of neutral videos."""
        keys = self._keys[commit.name]
        of_key = {key: self._levels(key) for key in sorted(set(keys.values()))}
        levels = {video: level for video, key in keys.items() if (level := of_key[key]) is not None}
        return replace(self.derivation, neutral=levels, made_from=self._made_from(keys))

    def _made_from(self, keys: Mapping[str, str]) -> dict[str, str]:
        return {
            digest(key): digest(*(source.identity for source in self._sources.get(key, [])))
            for key in sorted(set(keys.values()))
        }

    def _levels(self, key: str) -> Levels | None:
        sources = self._sources.get(key, [])
        for name in sorted({source.commit for source in sources} - self._read):
            self._read_commit(name)
        return pooled(self._rests[one.video_id] for one in sources if one.video_id in self._rests)

    def _read_commit(self, name: str) -> None:
        """Read all neutral videos of a commit at once, so its files are opened only once."""
        spans = {
            source.video_id: source.spans_us
            for sources in self._sources.values()
            for source in sources
            if source.commit == name
        }
        with open_sources(self.partition, [f for f in self._commits[name].files if f.table == "faces"]) as files:
            if files["faces"]:
                self._rests |= read_rest(Rows(files["faces"]), spans, self.derivation.config.gap_s)
        self._read.add(name)

    def _marks(self, commit: Commit) -> Iterator[tuple[str, Mark]]:
        config = self.derivation.config.neutral
        assert config is not None
        for file in commit.files:
            if file.table == "videos":
                fields = self.partition.fields_of(file.path)
                with open_parquet(self.partition.output.root.child(file.path)) as opened:
                    for video_id, extra in _extras(opened):
                        columns = {**fields, **extra}
                        if not self._sources:
                            self._note(columns, config.marked_by)
                        yield video_id, _mark(video_id, columns, config)

    def _note(self, columns: Mapping[str, Any], marked_by: str) -> None:
        """Remember what to name if there is no neutral video."""
        self.columns |= columns.keys()
        if len(self.values) < _VALUES_SHOWN and columns.get(marked_by) not in (None, ""):
            self.values.add(shown(str(columns[marked_by]), 40))


_VALUES_SHOWN: Final = 5


def _mark(video_id: str, columns: Mapping[str, Any], config: NeutralConfig) -> Mark:
    try:
        return read_mark(video_id, columns, config)
    except ValueError as error:
        what = f"{on_one_line(config.marked_by)} is {shown(str(error), 80)!r}"
        log.warning("video %s: %s, which is neither yes or no nor spans such as 2.5-10; counted as no", video_id, what)
        return read_mark(video_id, {**columns, config.marked_by: None}, config)


def _extras(file: pq.ParquetFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield video ids with the columns of the manifest, which may have been written by other software."""
    names = [name for name in ("video_id", "extra") if name in file.schema_arrow.names]
    for group in range(file.num_row_groups):
        for row in file.read_row_group(group, columns=names).to_pylist():
            yield row["video_id"], read_extra(row.get("extra"))


def published_identity(video: CommittedVideo, *more: str) -> str:
    """Return a digest of a video's published state: erasing a track changes its faces, all else its work key."""
    return digest(video.video_id, video.work_key, video.status, str(video.frames), str(video.faces), *more)


def digest(*parts: str) -> str:
    """Return the digest of texts, 16 hex digits."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]
