"""Meaning. Check a checkpoint end to end, and keep the result next to pulled weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featray.config import ModelConfig
from featray.errors import counted
from featray.meaning.examine import Examination, examine
from featray.meaning.footage import bundled_clip, network, watch
from featray.meaning.watched import Watched
from featray.model.checkpoint import Checkpoint
from featray.model.conventions import Conventions, configured_conventions
from featray.model.known import Recognised, recognise
from featray.records import dump, load
from featray.version import __version__


@dataclass(frozen=True)
class Checked:
    """The result of a check, with the checkpoint, conventions and clips used."""

    checkpoint: Checkpoint
    recognised: Recognised
    conventions: Conventions
    clips: tuple[str, ...]
    examination: Examination

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "path": str(self.checkpoint.path),
            "sha256": self.checkpoint.sha256,
            "weights_trained": self.checkpoint.weights_trained,
            "recognised": self.recognised.how,
            "conventions": self.conventions.text,
            "unusable": list(self.recognised.unusable),
            "clips": list(self.clips),
            **self.examination.to_json(),
        }


def check_checkpoint(
    checkpoint: Checkpoint, config: ModelConfig, videos: Sequence[str] = (), *, gpu: bool, threads: int
) -> Checked:
    """Examine the network's output for real faces: in the clip that ships with featray, and in any given videos.

    Args:
        checkpoint: the opened checkpoint.
        config: its `checkpoint`, by which it was found, and `conventions`.
        videos: additional footage.
        gpu: whether the network runs on a GPU.
        threads: CPU threads of the network.

    Raises:
        UsageError: a video cannot be read, or shows a face for less than three seconds.
        ModelError: the network cannot run on this machine.
    """
    recognised = recognise(checkpoint, config.checkpoint)
    conventions = configured_conventions(config) or recognised.conventions
    say = network(checkpoint, conventions, gpu=gpu, threads=threads)
    clips: list[Watched] = watch([bundled_clip(), *videos], say, mesh_normalized=checkpoint.config.mesh_normalized)
    found = examine(clips, conventions, recognised.unusable)
    return Checked(checkpoint, recognised, conventions, tuple(clip.name for clip in clips), found)


@dataclass(frozen=True)
class KeptCheck:
    """The record of a check, kept as JSON next to pulled weights."""

    sha256: str
    conventions: str
    passed: bool
    agreeing: int
    opposed: list[str]
    no_evidence: int
    faults: list[str]
    advice: str
    checked_at: str
    featray_version: str

    @property
    def summary(self) -> str:
        """Return the result as one readable phrase."""
        verdict = "columns mean what they say" if self.passed else self.advice
        agreeing = f"{counted(self.agreeing, 'pair')} in agreement"
        counts = f"{agreeing}, {len(self.opposed)} opposed, {self.no_evidence} without evidence"
        return f"{counts}; {verdict}"


def keep(checked: Checked) -> KeptCheck:
    """Write the result next to the weights.

    Raises:
        OSError: the file cannot be written.
    """
    found, checkpoint = checked.examination, checked.checkpoint
    kept = KeptCheck(
        sha256=checkpoint.sha256,
        conventions=checked.conventions.text,
        passed=found.passed,
        agreeing=found.counts["agrees"],
        opposed=[row.name for row in found.rows if row.verdict == "opposed"],
        no_evidence=found.counts["no evidence"],
        faults=list(found.faults),
        advice=found.advice,
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        featray_version=__version__,
    )
    target = _place(checkpoint.path)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(dump(kept))
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return kept


def read_kept(path: Path, sha256: str) -> KeptCheck | None:
    """Return the record next to a weights file; None if it was never checked, or has changed since."""
    try:
        kept = load(KeptCheck, _place(path).read_bytes())
    except (OSError, ValueError):
        return None
    return kept if kept.sha256 == sha256 else None


def _place(path: Path) -> Path:
    return path.with_suffix(".check.json")
