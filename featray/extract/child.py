"""Extract. The decoding process: native code reads untrusted bytes here to plan, decode and detect.

`forkserver.py` forks it. On systems that cannot fork, `isolation.py` starts it as `python -m featray.extract.child`.
It answers requests on a socket until the socket closes. It may crash, hang or be killed at any time: the parent notices
only through the socket, and nothing is left behind because the child owns no files.
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
from typing import Any, Final

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
from featray.store.location import Location, is_on_disk
from featray.unloaded import hide_pandas

OF_TERMINALS: Final = (signal.SIGINT, signal.SIGHUP)
"""Signals that a terminal sends to all its processes. Decoding processes leave them to their parent, or a unit in
progress would be lost as a crash of its video."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ChildSettings:
    """Settings of the decoding process, sent to it first.

    Attributes:
        storage_options: used by the parent, which reads remote files; never sent to the child.
        cache_dir: folder of downloaded weights and converted networks.
        detector_sha256: digest of the detector that the run was planned with; None accepts any.
        boxes_options: storage options of the boxes file, used by the parent; the videos' options are never used for a
            file in another place.
        compare: whether to look for repeated frames; not in the config because it does not change the tables.
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
        """Return the settings for the decoding processes of a run with this config."""
        options, boxes_options = config.input.storage_options, options_for(config.detect.boxes, config.input)
        return cls(config.decode, config.detect, options, cache_dir(), detector_sha256, boxes_options)

    @property
    def needs_gpu(self) -> bool:
        """Return whether decoding, detection or cropping runs on a GPU."""
        return self.detect.device == "gpu" or self.decode.hwaccel != "none"

    def without_gpu(self) -> ChildSettings:
        """Return settings for a process that only plans, or that repeats on the CPU what the run did on a GPU."""
        decode = self.decode.model_copy(update={"hwaccel": "none"})
        return replace(self, decode=decode, detect=self.detect.model_copy(update={"device": "cpu"}))

    @property
    def detector_files(self) -> DetectorFiles:
        """Return where the detector finds its files, in the parent."""
        return DetectorFiles(self.cache_dir, self.boxes_options, self.detector_sha256)

    @property
    def remote_boxes(self) -> str | None:
        """Return the child's name for a boxes file that the parent reads, else None; the suffix gives the format."""
        boxes = self.detect.boxes
        return None if boxes is None or is_on_disk(boxes) else f"boxes{Path(redact_uri(boxes)).suffix}"

    def without_secrets(self) -> ChildSettings:
        """Return these settings without anything secret, for the child."""
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
        """Open the GPU and everything that runs on it, before the sandbox closes and before any video is read.

        CUDA opens a socket and may start a program, which the sandbox refuses. Loading the detector now also keeps that
        time out of the first unit's. An empty message tells the parent that the GPU is ready; otherwise the message
        gives the reason in one line.
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
        """Answer requests until the parent closes the socket."""
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
        """Return the location of a video that the parent reads; None for a video on the local disk."""
        return None if video.address else self._files.location(VIDEO, video.uri)

    def _open_detector(self) -> Callable[[Video], Detector]:
        settings, boxes = self._settings, None
        if name := settings.remote_boxes:
            boxes = self._files.location(name, str(settings.detect.boxes))
        return detector_for_videos(settings.detect, replace(settings.detector_files, boxes=boxes))

    def _send_chunks(self, task: UnitTask) -> None:
        if self._detector_for is None:
            self._detector_for = self._open_detector()
            gc.freeze()  # everything loaded so far stays; garbage collections can skip it
        detector = self._detector_for(task.video)
        open_file = partial(open_source, task.video, {}, self._location(task.video))
        settings = self._settings
        every, compare = settings.detect.every, settings.compare
        for chunk in extract_chunks(task, open_file, settings.decode, detector, every, compare, self._cut):
            send_chunk(self._connection, chunk)
            del chunk  # frees 50 MB before the next chunk is made


def _give_back_memory() -> None:
    """Free the memory of the last request; without this, memory grows by a fifth over a few hundred units.

    PyAV's containers sit in reference cycles, which Python would collect much later, and the
    allocator keeps free memory between long-lived blocks.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def ignore_terminals() -> None:
    """Ignore `OF_TERMINALS`."""
    for number in OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)


def _limit(memory_bytes: int, open_files: int) -> None:
    # Limit private writable memory only: a limit on address space would count memory that libraries map but never use.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_FSIZE, 1 << 30),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    # No limit on CPU time: the parent measures the time of a unit, because it knows when the child waits for data.
    ignore_terminals()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(descriptor: int, memory_bytes: int, level: int) -> None:
    """Serve on a socket until it closes.

    Args:
        descriptor: file descriptor of the socket.
        memory_bytes: limit on this process's private memory.
        level: log level of featray's logger.
    """
    hide_pandas()
    redact_logs()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd pictures: unreadable ones become rows
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
