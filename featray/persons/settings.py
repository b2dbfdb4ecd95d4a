"""Persons. Settings of a clustering, and the partition name derived from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

from featray.errors import UsageError, printable

THRESHOLDS: Final = {"face-api": 0.96}
"""Minimum cosine of two centres that are one person, by embedder.

For `face-api` it was chosen on templates of 13 people from pictures and clips, each 12 times under other light,
blurred, mirrored, small or badly compressed. Pairs of two people reach 0.966, and one in a thousand reaches 0.960.
Pairs of one person are above 0.963 in 99 of a hundred cases and never below 0.942. Most of the pictures are stills;
people who move score lower. dlib's own threshold, a distance of 0.6, equals a cosine of 0.90; it is meant for single
pictures of few people, and on these templates it joins strangers."""

EPOCH: Final = 2
"""Increment this when a code change alters the clustering for the same settings."""


@dataclass(frozen=True)
class PersonsSettings:
    """Settings of the clustering of tracks into persons.

    Attributes:
        threshold: cosine in (0, 1); None for the embedder's default.
    """

    threshold: float | None = None

    def threshold_of(self, embedder: str) -> float:
        """Return the threshold for the embeddings of an embedder.

        Raises:
            UsageError: none is set, and the embedder has no default.
        """
        if self.threshold is None and embedder not in THRESHOLDS:
            raise UsageError(f"persons: no threshold is known for {printable(embedder)}; choose one with --threshold")
        return THRESHOLDS[embedder] if self.threshold is None else self.threshold

    @property
    def clustering(self) -> str:
        """Return the value of the partition `clustering`: `c-` and 8 hex digits."""
        text = json.dumps({"epoch": EPOCH, **asdict(self)}, sort_keys=True)
        return f"c-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
