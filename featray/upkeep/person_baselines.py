"""Upkeep. Baselines per person, and which shards must be derived again because of them.

For each shard, a derivation with `baseline: person` needs all published faces of the people in it. The table `persons`
lists their tracks. The commit stores a digest per person of the tracks that its rows were made from. If the digest
differs from the current one (`featray persons` has run again, or a video was added, replaced or erased, or lost a
track), the shard is derived again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from featray.findings.batch import Levels
from featray.findings.derive import Derivation
from featray.findings.pooled import PooledFaces
from featray.findings.rows import Rows
from featray.tables.commits import Commit
from featray.tables.derived import open_sources
from featray.tables.layout import Partition
from featray.tables.persons import TrackKey, read_person_ids
from featray.upkeep.neutral import digest, published_identity

MOST_FACES: Final = 2_000_000
"""Faces in memory at once, 180 MB: people are processed in groups of about this many faces, or one by one."""


@dataclass
class PersonBaselines:
    """The people of a partition, as currently listed in `persons`.

    Attributes:
        sources: as in `Baselines`.
    """

    partition: Partition
    derivation: Derivation
    sources: str = "persons"
    _person_of: dict[TrackKey, str] = field(default_factory=dict)
    _tracks: dict[str, list[TrackKey]] = field(default_factory=dict)
    _identity: dict[str, str] = field(default_factory=dict)
    _faces: dict[str, int] = field(default_factory=dict)
    _people: dict[str, list[str]] = field(default_factory=dict)
    _of_commit: dict[str, list[TrackKey]] = field(default_factory=dict)
    _commits: dict[str, Commit] = field(default_factory=dict)
    _levels: dict[str, Levels | None] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Return the number of people."""
        return len(self._tracks)

    def look(self, commits: Iterable[Commit]) -> PersonBaselines:
        """Find the people in each commit of the partition; reads `persons`, but no faces yet."""
        tracks: dict[str, list[TrackKey]] = {}
        for commit in commits:
            for key, person in read_person_ids(self.partition, commit):
                self._person_of[key] = person
                tracks.setdefault(key[0], []).append(key)
            if commit.videos:
                self._commits[commit.name] = commit
        for commit in self._commits.values():
            mine = self._of_commit[commit.name] = []
            for video in commit.videos:
                self._identity[video.video_id] = published_identity(video)
                known = tracks.get(video.video_id, [])
                mine += known
                for key in known:
                    person = self._person_of[key]
                    self._tracks.setdefault(person, []).append(key)
                    self._faces[person] = self._faces.get(person, 0) + video.faces // len(known)
            self._people[commit.name] = sorted({self._person_of[key] for key in mine})
        for of_person in self._tracks.values():
            of_person.sort()
        for name, commit in self._commits.items():
            self._commits[name] = replace(commit, videos=[], rewrites=[])
        return self

    def is_current(self, commit: Commit) -> bool:
        """Return whether the rows of a scanned commit were made from the current people."""
        return commit.derived_from.get(self.derivation.name, {}) == self._made_from(commit)

    def derivation_of(self, commit: Commit) -> Derivation:
        """Return the derivation of a scanned commit, with its tracks' baselines; reads the faces of their people."""
        wanted = [person for person in self._people.get(commit.name, []) if person not in self._levels]
        for group in self._groups(wanted):
            self._read(group)
        levels = {key: self._levels[self._person_of[key]] for key in self._of_commit.get(commit.name, [])}
        known = {key: level for key, level in levels.items() if level is not None}
        return replace(self.derivation, of_tracks=known, made_from=self._made_from(commit))

    def _made_from(self, commit: Commit) -> dict[str, str]:
        """Return people's digests, keyed by digests of their ids because a commit outlives a person's erasure."""
        return {
            digest(person): digest(*(f"{self._identity[video]} {track}" for video, track in self._tracks[person]))
            for person in self._people.get(commit.name, [])
        }

    def _groups(self, wanted: list[str]) -> Iterator[list[str]]:
        """Yield groups of people to read together: these and, while there is room, those that other commits need."""
        if not wanted:
            return
        asked = set(wanted)
        others = (
            person
            for name, commit in self._commits.items()
            if not self.is_current(commit)
            for person in self._people[name]
            if person not in self._levels and person not in asked
        )
        group: list[str] = []
        faces = 0
        for person in [*wanted, *dict.fromkeys(others)]:
            if group and faces + self._faces[person] > MOST_FACES:
                yield group
                group, faces = [], 0
                if person not in asked:
                    return
            group.append(person)
            faces += self._faces[person]
        yield group

    def _read(self, people: list[str]) -> None:
        numbers = {person: number for number, person in enumerate(people)}
        whose = {key: number for person, number in numbers.items() for key in self._tracks[person]}
        pool = PooledFaces(whose, self.derivation.config.gap_s)
        for name, commit in self._commits.items():
            if numbers.keys().isdisjoint(self._people[name]):
                continue
            with open_sources(self.partition, [file for file in commit.files if file.table == "faces"]) as files:
                if files["faces"]:
                    pool.add(Rows(files["faces"]))
        levels = pool.levels()
        self._levels |= {person: levels.get(number) for person, number in numbers.items()}
