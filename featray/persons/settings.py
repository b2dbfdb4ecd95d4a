"""Persons. Settings of a clustering, and the name of the partition that follows from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

from featray.errors import UsageError, printable

THRESHOLDS: Final = {"face-api": 0.96}
"""Cosine of two centres from which on they are one person, by embedder.

Of `face-api`: templates of 13 people from pictures and clips, each 12 times under other light, blurred, mirrored, small
or badly compressed. Those of two people reach 0.966, and 0.960 in one of a thousand pairs; those of one person are
above 0.963 in 99 of a hundred, and never below 0.942. Most of the pictures are stills: people who move come out lower.
dlib's own 0.6, a distance, is a cosine of 0.90: for single pictures of few people; on these it joins strangers."""

EPOCH: Final = 2
"""Raised when the code itself changes who is who for the same settings."""


@dataclass(frozen=True)
class PersonsSettings:
    """Settings of the clustering of tracks into persons.

    Attributes:
        threshold: cosine in (0, 1); None for the embedder's own.
    """

    threshold: float | None = None

    def threshold_of(self, embedder: str) -> float:
        """Return the threshold for vectors of an embedder."""
        if self.threshold is None and embedder not in THRESHOLDS:
            raise UsageError(f"persons: no threshold is known for {printable(embedder)}; choose one with --threshold")
        return THRESHOLDS[embedder] if self.threshold is None else self.threshold

    @property
    def clustering(self) -> str:
        """The value of the partition `clustering`: `c-` and 8 hex digits."""
        text = json.dumps({"epoch": EPOCH, **asdict(self)}, sort_keys=True)
        return f"c-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
