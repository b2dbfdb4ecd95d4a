"""Extract. The process in which native code meets unknown bytes: it plans, decodes and detects.

`forkserver.py` forks it. Where no process can be forked, `isolation.py` starts it as `python -m featray.extract.child`.
It answers requests on a socket until that closes. It may crash, hang or be killed at any time: nobody else notices but
through the socket, and nothing is left behind, since it owns no file.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from featray.config import Config, DecodeConfig, DetectConfig, cache_dir
from featray.errors import FeatrayError, one_line
from featray.extract.chunks import extract_chunks
from featray.extract.devices import OPEN_FILES, open_devices
from featray.extract.plan import UnitTask, VideoPlan, open_source, plan_video
from featray.extract.sandbox import confine
from featray.extract.wire import VIDEO, ServedFiles, send_chunk, send_plan
from featray.faces.crop import Cutter, Sampled
from featray.faces.detector import Detector, DetectorFiles
from featray.faces.detectors import detector_for_videos, open_cutter
from featray.redaction import redact_logs, redact_uri
from featray.sources.listing import Video
from featray.sources.places import options_for
from featray.store.storage import Location, is_on_disk
from featray.unloaded import hide_pandas

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ChildSettings:
    """Settings of the decoding child, sent to it first.

    Attributes:
        storage_options: for the parent, which reads what is not on this machine's disk; the child is told none.
        cache_dir: where pulled weights and converted networks are.
        detector_sha256: of the detector the run was planned with; None: whichever is here.
        boxes_options: storage options of the file of boxes, for the parent; no other place gets those of the videos.
        compare: whether frames that repeat are looked for; no setting, as the tables are the same without.
    """

    decode: DecodeConfig
    detect: DetectConfig
    storage_options: dict[str, Any]
    cache_dir: Path = field(default_factory=cache_dir)
    detector_sha256: str | None = None
    boxes_options: dict[str, Any] = field(default_factory=dict)
    compare: bool = True

    @classmethod
    def of(cls, config: Config, detector_sha256: str | None = None) -> ChildSettings:
        """Return what the decoding processes of a run with this config are told."""
        options, boxes_options = config.input.storage_options, options_for(config.detect.boxes, config.input)
        return cls(config.decode, config.detect, options, cache_dir(), detector_sha256, boxes_options)

    @property
    def needs_gpu(self) -> bool:
        """Return whether decoding, detecting or cutting runs on a GPU."""
        return self.detect.device == "gpu" or self.decode.hwaccel != "none"

    def without_gpu(self) -> ChildSettings:
        """These settings for a process that only plans, or that does on the CPU what the run did on a GPU."""
        decode = self.decode.model_copy(update={"hwaccel": "none"})
        return replace(self, decode=decode, detect=self.detect.model_copy(update={"device": "cpu"}))

    @property
    def detector_files(self) -> DetectorFiles:
        """Where the detector finds its files, in the parent."""
        return DetectorFiles(self.cache_dir, self.boxes_options, self.detector_sha256)

    @property
    def remote_boxes(self) -> str | None:
        """Return what the child calls the file of boxes, if the parent has to read it; its suffix says its format."""
        boxes = self.detect.boxes
        return None if boxes is None or is_on_disk(boxes) else f"boxes{Path(redact_uri(boxes)).suffix}"

    def without_secrets(self) -> ChildSettings:
        """These settings as the child may know them."""
        detect = self.detect
        if self.remote_boxes:
            detect = detect.model_copy(update={"boxes": redact_uri(str(detect.boxes))})
        return replace(self, detect=detect, storage_options={}, boxes_options={})


class _Child:
    def __init__(self, connection: Connection, settings: ChildSettings) -> None:
        self._connection, self._settings = connection, settings
        self._files = ServedFiles(connection)
        self._detector_for: Callable[[Video], Detector] | None = None
        self._cut: Cutter | None = None
        if self._settings.needs_gpu:
            self._open_gpu()

    def _open_gpu(self) -> None:
        """Open the GPU, and all that runs on it, before this process is confined.

        CUDA's start makes a socket and may start a program, which later is refused; nothing of a video was met yet.
        What it loads for the detector's first batch comes then as well, out of the time of a unit. The parent is told
        when that is done, or in one line why it cannot be.
        """
        settings = self._settings
        try:
            self._devices = open_devices(settings.decode, settings.detect)
            self._detector_for, self._cut = self._open_detector(), open_cutter(settings.detect)
            self._cut(np.zeros((1, 1, 3), np.uint8), Sampled.of(np.array([0.0, 0.0, 1.0]), 1, 1))
        except (FeatrayError, RuntimeError) as error:
            self._connection.send_bytes(one_line(error, 500).encode())
            os._exit(1)
        self._connection.send_bytes(b"")
        gc.freeze()

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
                send_plan(self._connection, self._plan(request))
            _give_back_memory()

    def _plan(self, video: Video) -> VideoPlan:
        settings = self._settings
        return plan_video(video, settings.decode, {}, settings.detect.every, self._location(video))

    def _location(self, video: Video) -> Location | None:
        """Where the parent reads a video; None for one that lies on this machine's disk."""
        return None if video.address else self._files.location(VIDEO, video.uri)

    def _open_detector(self) -> Callable[[Video], Detector]:
        settings, boxes = self._settings, None
        if name := settings.remote_boxes:
            boxes = self._files.location(name, str(settings.detect.boxes))
        return detector_for_videos(settings.detect, replace(settings.detector_files, boxes=boxes))

    def _send_chunks(self, task: UnitTask) -> None:
        if self._detector_for is None:
            self._detector_for = self._open_detector()
            gc.freeze()  # what is loaded by now stays; collections need not look at it again
        detector = self._detector_for(task.video)
        open_file = partial(open_source, task.video, {}, self._location(task.video))
        settings = self._settings
        every, compare = settings.detect.every, settings.compare
        for chunk in extract_chunks(task, open_file, settings.decode, detector, every, compare, self._cut):
            send_chunk(self._connection, chunk)
            del chunk  # 50 MB, or they would be kept while the next one is made


def _give_back_memory() -> None:
    """Free what the last request left, or memory grows by a fifth over some hundred units.

    PyAV's containers hang in reference cycles, which Python would collect long after, and the
    allocator keeps what lies between long-lived blocks.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _limit(memory_bytes: int, open_files: int) -> None:
    # Private writable memory only: address space would count what libraries map and never touch.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_FSIZE, 1 << 30),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    # No limit of CPU seconds: those of a unit are counted by the parent, which knows when it waits.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(descriptor: int, memory_bytes: int, level: int) -> None:
    """Serve on a socket until it closes.

    Args:
        descriptor: of the socket.
        memory_bytes: that this process may have of its own.
        level: of featray's own log.
    """
    hide_pandas()
    redact_logs()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of pictures that are odd: what cannot be read is accounted for
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("featray").setLevel(level)
    connection = Connection(descriptor)
    settings: ChildSettings = connection.recv()
    _limit(memory_bytes, OPEN_FILES if settings.needs_gpu else 256)
    child = _Child(connection, settings)
    confine()
    child.serve()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
