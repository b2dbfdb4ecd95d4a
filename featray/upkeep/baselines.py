"""Upkeep. Baselines that rows of other shards give: which there are, and whether a shard's rows were made from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from featray.findings.derive import Derivation
from featray.tables.commits import Commit
from featray.tables.layout import Partition
from featray.upkeep.neutral import NeutralVideos
from featray.upkeep.person_baselines import PersonBaselines


class Baselines(Protocol):
    """What rows of a partition's commits rest on beside their own shard's."""

    @property
    def sources(self) -> str:
        """Return the word for what the baselines come from."""
        ...

    def is_current(self, commit: Commit) -> bool:
        """Return whether rows of a commit that was looked at were made from what there is now."""
        ...

    def derivation_of(self, commit: Commit) -> Derivation:
        """Return the derivation of a commit that was looked at, with its baselines."""
        ...


def look_for_baselines(partition: Partition, derivation: Derivation, commits: Iterable[Commit]) -> Baselines | None:
    """Look through all commits of a partition; None where a shard's rows follow from the shard alone."""
    if derivation.config.baseline == "neutral":
        return NeutralVideos(partition, derivation).look(commits)
    if derivation.config.baseline == "person":
        return PersonBaselines(partition, derivation).look(commits)
    return None
