"""Views. Draw one picture of a clip: the frame with its faces, the panel next to it, the timeline and notes below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageOps

from featray.version import __version__
from featray.views.canvas import GROUND, MUTED, WARNING, shortened, tag, text
from featray.views.happenings import Event
from featray.views.overlay import Square, draw_faces, hide
from featray.views.panel import HEIGHT as PANEL_HEIGHT
from featray.views.panel import Panel
from featray.views.selection import SampledFrame, VideoRow
from featray.views.source import Shown
from featray.views.timeline import Timeline, timeline_height

NO_MEANING: Final = (
    "SYNTHETIC WEIGHTS: facial numbers carry no meaning; the detector's boxes and five landmarks are real"
)
"""Shown on every picture of a release whose weights are not trained."""

NOT_ESTIMATED: Final = "NOT ESTIMATED BY THESE WEIGHTS, whatever it says: "
"""Shown on every picture of a release whose checkpoint does not estimate some columns; their names follow."""

_FOOTER: Final = 30

_WIDEST_PX: Final = 3840
"""Maximum width of a frame on a page; wider frames are shrunk, because H.264 and players have limits."""


@dataclass(frozen=True)
class Look:
    """The appearance of pictures.

    Attributes:
        video: video to draw.
        layers: layers drawn on faces; see `overlay.LAYERS`.
        blur: whether heads are hidden.
        track_id: track of the panel and curves.
    """

    video: VideoRow
    layers: frozenset[str]
    blur: bool
    track_id: int | None

    @property
    def title(self) -> str:
        """Return the title; with `blur`, without the file name, which may contain a person's name."""
        return self.video.video_id if self.blur else f"{self.video.label}  ({self.video.video_id})"


def draw_picture(shown: Shown, scale: float, look: Look, hidden: list[Square]) -> Image.Image:
    """Return the upright frame, scaled, with its faces drawn.

    Args:
        shown: the frame and its row; nothing is drawn on a frame that was not sampled.
        scale: px of the picture per px of the frame.
        look: appearance.
        hidden: squares to hide before anything is drawn.
    """
    picture = Image.fromarray(shown.frame.scaled_rgb(scale))
    if look.blur:
        hide(picture, hidden, scale)
    if shown.sampled is not None:
        draw_faces(picture, shown.sampled.faces, scale, look.layers)
    return picture


class Pages:
    """Draws the pages of a clip, all of one even size."""

    def __init__(
        self,
        look: Look,
        frames: list[SampledFrame],
        columns: tuple[str, ...],
        frame_size_px: tuple[int, int],
        height_px: int,
        span_us: tuple[int, int],
        events: Sequence[Event] = (),
    ) -> None:
        """Lay the page out.

        Args:
            look: appearance.
            frames: sampled frames of the clip, for the curves.
            columns: columns to plot.
            frame_size_px: width and height of the upright frames.
            height_px: height at which frames are shown.
            span_us: first and last time of the clip.
            events: events of the video, for the timeline.
        """
        self._look, self._unit = look, height_px / PANEL_HEIGHT
        self._panel = Panel(self._unit, look.video.unusable)
        scale = min(height_px / frame_size_px[1], _WIDEST_PX / frame_size_px[0])
        self._picture_px = (max(1, round(frame_size_px[0] * scale)), max(1, round(frame_size_px[1] * scale)))
        self._height_px = height_px
        width = self._picture_px[0] + self._panel.width_px
        unusable = look.video.unusable
        self._timeline = Timeline(frames, look.track_id, columns, span_us, width, self._unit, unusable, events)
        height = height_px + round(timeline_height(events) * self._unit) + round(_FOOTER * self._unit)
        self.size_px = (width + width % 2, height + height % 2)
        self._blank = Image.new("RGB", self.size_px, GROUND)
        self._footer(ImageDraw.Draw(self._blank))
        self._latest: SampledFrame | None = None

    def draw(self, shown: Shown, hidden: list[Square]) -> Image.Image:
        """Return the page of a frame; the panel shows the latest sampled frame, and its index and time."""
        page = self._blank.copy()
        scale = min(self._picture_px[1] / shown.frame.height_px, self._picture_px[0] / shown.frame.width_px)
        picture = draw_picture(shown, scale, self._look, hidden)
        if shown.sampled is None:
            self._say(picture, "not sampled")
        elif shown.sampled.status == "decode_error":
            self._say(picture, "decoding error")
        if picture.size != self._picture_px:  # the frame size changed in the stream
            picture = ImageOps.pad(picture, self._picture_px, color=GROUND)
        self._latest = shown.sampled or self._latest
        page.paste(picture, (0, (self._height_px - picture.height) // 2))
        page.paste(self._panel.draw(self._latest, self._look.track_id), (self._picture_px[0], 0))
        page.paste(self._timeline.draw(shown.frame.time_us), (0, self._height_px))
        return page

    def _say(self, picture: Image.Image, words: str) -> None:
        unit = self._unit
        tag(ImageDraw.Draw(picture), (14 * unit, picture.height - 14 * unit), words, 14 * unit, GROUND, MUTED)

    def _footer(self, draw: ImageDraw.ImageDraw) -> None:
        unit, (width, height) = self._unit, self.size_px
        draw_footer(draw, self._look, (0, height - round(_FOOTER * unit), width, height), unit)


def draw_footer(
    draw: ImageDraw.ImageDraw, look: Look, field_xyxy: tuple[int, int, int, int], unit: float, size: float = 12.5
) -> None:
    """Draw video, release and version in one line, and a warning above them if numbers carry no meaning."""
    left, top, right, bottom = field_xyxy
    middle, edge = (top + bottom) / 2, 18 * unit
    words = f"{look.title}   {look.video.release}   featray {__version__}"
    warning = NO_MEANING
    if look.video.weights_trained:
        warning = f"{NOT_ESTIMATED}{', '.join(look.video.unusable)}" if look.video.unusable else ""
    if not warning:
        text(draw, (left + edge, middle), shortened(words, size * unit, right - left - 2 * edge), size * unit, MUTED)
        return
    draw.rectangle((left, top, right, bottom), fill=(64, 44, 12))
    room = right - left - 2 * edge
    note = shortened(warning, size * unit, room)
    text(draw, (left + edge, middle), note, size * unit, WARNING)
    room -= draw.textlength(warning, font_size=size * unit) + 2 * edge
    if room > 160 * unit:
        text(draw, (right - edge, middle), shortened(words, size * unit, room), size * unit, WARNING, "rm")
