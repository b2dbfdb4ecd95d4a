"""Upkeep. Baselines computed from rows of other shards, and whether a shard's derived rows still match them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from featray.findings.derive import Derivation
from featray.tables.commits import Commit
from featray.tables.layout import Partition
from featray.upkeep.neutral import NeutralVideos
from featray.upkeep.person_baselines import PersonBaselines


class Baselines(Protocol):
    """Data of other shards that the derived rows of a partition's commits depend on."""

    @property
    def sources(self) -> str:
        """Return the noun for the source of the baselines, for messages."""
        ...

    def is_current(self, commit: Commit) -> bool:
        """Return whether the rows of a scanned commit were made from the current data."""
        ...

    def derivation_of(self, commit: Commit) -> Derivation:
        """Return the derivation of a scanned commit, with its baselines."""
        ...


def look_for_baselines(partition: Partition, derivation: Derivation, commits: Iterable[Commit]) -> Baselines | None:
    """Scan all commits of a partition for baselines; return None if rows depend only on their own shard."""
    if derivation.config.baseline == "neutral":
        return NeutralVideos(partition, derivation).look(commits)
    if derivation.config.baseline == "person":
        return PersonBaselines(partition, derivation).look(commits)
    return None
