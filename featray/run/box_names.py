"""Run. The names in a file of boxes, compared with the videos of the input before a run begins."""

from __future__ import annotations

import logging

from featray.config import Config
from featray.errors import ConfigError, counted, shown
from featray.faces.boxes import BoxesFile, names_of
from featray.run.job import detector_files
from featray.sources.listing import list_videos

log = logging.getLogger(__name__)


def check_box_names(config: Config) -> None:
    """Warn of boxes that belong to no video. The input is listed once more for this, and only with `detector: boxes`.

    Raises:
        ConfigError: a name in the file is that of several videos, which would get each other's boxes.
        StorageError: the file or the input cannot be read.
    """
    if config.detect.detector != "boxes":
        return
    file = BoxesFile(config.detect, detector_files(config))
    named, places = file.named(), dict[str, str]()
    for video in list_videos(config.input, tell=False):
        names = names_of(video)
        for name in named.intersection(names):
            other = places.setdefault(name, names[1])
            if other != names[1]:
                raise ConfigError(
                    f"detect.boxes: {file.uri}: {shown(name)} is the name of {other} and of {names[1]}; "
                    "give more of their paths, or their ids"
                )
    if unknown := sorted(named - places.keys()):
        log.warning(
            "%s: %d of %s belong to no video of the input, such as %s",
            file.uri, len(unknown), counted(len(named), "name"), shown(unknown[0]),
        )  # fmt: skip
