"""Extract. The process in which native code meets unknown bytes: it plans, decodes and detects.

Started by `isolation.py` as `python -m featray.extract.child FD`; it answers requests on the socket
FD until that closes. It may crash, hang or be killed at any time: nobody else notices but
through the socket, and nothing is left behind, since it owns no file.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from featray.config import Config, DecodeConfig, DetectConfig, cache_dir
from featray.extract.chunks import extract_chunks
from featray.extract.plan import UnitTask, VideoPlan, open_source, plan_video
from featray.faces.detector import Detector, DetectorFiles
from featray.faces.detectors import detector_for_videos
from featray.sources.listing import Video

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ChildSettings:
    """What the child needs to know; sent to it first.

    Attributes:
        cache_dir: where pulled weights and converted networks are.
        detector_sha256: of the detector the run was planned with; None: whichever is here.
    """

    decode: DecodeConfig
    detect: DetectConfig
    storage_options: dict[str, Any]
    cache_dir: Path = field(default_factory=cache_dir)
    detector_sha256: str | None = None

    @classmethod
    def of(cls, config: Config, detector_sha256: str | None = None) -> ChildSettings:
        """Return what the decoding processes of a run with this config are told."""
        return cls(config.decode, config.detect, config.input.storage_options, cache_dir(), detector_sha256)

    @property
    def detector_files(self) -> DetectorFiles:
        """Where the detector finds its files."""
        return DetectorFiles(self.cache_dir, self.storage_options, self.detector_sha256)


class _Child:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._settings: ChildSettings = connection.recv()
        self._detector_for: Callable[[Video], Detector] | None = None

    def serve(self) -> None:
        """Answer requests until the parent is gone."""
        while True:
            try:
                request: Video | UnitTask = self._connection.recv()
            except EOFError:
                return
            if isinstance(request, UnitTask):
                self._send_chunks(request)
            else:
                self._connection.send(self._plan(request))
            _give_back_memory()

    def _plan(self, video: Video) -> VideoPlan:
        settings = self._settings
        return plan_video(video, settings.decode, settings.storage_options, settings.detect.every)

    def _send_chunks(self, task: UnitTask) -> None:
        if self._detector_for is None:
            self._detector_for = detector_for_videos(self._settings.detect, self._settings.detector_files)
            gc.freeze()  # what is loaded by now stays; collections need not look at it again
        detector = self._detector_for(task.video)
        open_file = partial(open_source, task.video, self._settings.storage_options)
        settings = self._settings
        for chunk in extract_chunks(task, open_file, settings.decode, detector, settings.detect.every):
            # The chips follow as bare bytes: pickling 50 MB would copy them twice.
            self._connection.send((replace(chunk, chips=chunk.chips[:0]), len(chunk.chips)))
            if len(chunk.chips):
                self._connection.send_bytes(chunk.chips.data.cast("B"))
            del chunk  # 50 MB, or they would be kept while the next one is made


def _give_back_memory() -> None:
    """Free what the last request left, or memory grows by a fifth over some hundred units.

    PyAV's containers hang in reference cycles, which Python would collect long after, and the
    allocator keeps what lies between long-lived blocks.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _limit(memory_bytes: int) -> None:
    # Private writable memory only: address space would count what libraries map and never touch.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve on the socket whose number is the first argument, within the memory given as the second."""
    descriptor, memory_bytes = map(int, sys.argv[1:])
    _limit(memory_bytes)
    _Child(Connection(descriptor)).serve()


if __name__ == "__main__":
    main()
