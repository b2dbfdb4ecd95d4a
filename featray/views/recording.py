"""Views. `featray view`: export a video with its rows as a Rerun recording, on the video's own clock.

The timeline `time` is the presentation time. Entities: `video` (the frames, upright, with square pixels), `video/faces`
(boxes), `video/mesh` and `head/mesh` (478 vertices in 2D and 3D), `signals/<group>/<column>/<track>` (curves),
`events/<track>/<kind>` (states that begin and end), `notes` (limits of the numbers).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import av
import numpy as np
from PIL import Image

from featray.errors import RunError, UsageError
from featray.names import AU_NAMES_20, EMOTION_NAMES_7
from featray.store.location import locate_beside
from featray.store.scratch import scratch_folder
from featray.store.storage import write_bytes
from featray.tables.layout import Output
from featray.views.canvas import track_colour
from featray.views.overlay import hide
from featray.views.page import NO_MEANING, NOT_ESTIMATED
from featray.views.preview import PreviewSettings, VideoRead, hidden_squares, read_video
from featray.views.selection import SampledFrame, VideoRow
from featray.views.source import Shown, Source, open_source_of

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "action_units": AU_NAMES_20,
    "emotions": tuple(f"emotion_{name}" for name in EMOTION_NAMES_7),
    "affect": ("valence", "arousal"),
    "gaze": ("gaze_yaw", "gaze_pitch"),
    "pose": ("pose_pitch", "pose_yaw", "pose_roll"),
}
"""Columns of `faces` that become curves, by plot."""

_TICK: Final = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Recording:
    """A recording that was made: its number of pictures, and the video."""

    frames: int
    video: VideoRow


def save_recording(output: Output, path: str, settings: PreviewSettings) -> Recording:
    """Write a recording as an .rrd file.

    Args:
        output: output with the tables.
        path: path of the file, local or a URI; ends in `.rrd`.
        settings: video, release and range, and whether to hide heads.

    Raises:
        UsageError: Rerun is not installed; no such video or range; or the source is not what the tables were made from.
        VideoError: the source cannot be opened.
        StorageError: the tables cannot be read, or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".rrd":
        raise UsageError(f"--save {path}: must end in .rrd")
    target = locate_beside(path, output.root)
    data, made = _record(output, settings)
    write_bytes(target, data)
    return made


def show_recording(output: Output, settings: PreviewSettings, *, web: bool) -> None:
    """Make a recording and open it in Rerun's viewer or, with `web`, in a browser; return when it is closed.

    The viewer listens only on the loopback address; by default, Rerun would expose the video to the network.

    Raises:
        UsageError, VideoError, StorageError: as `save_recording`.
        RunError: the viewer failed.
    """
    with scratch_folder("view") as folder:
        path = Path(folder) / "recording.rrd"
        path.write_bytes(_record(output, settings)[0])
        command = [sys.executable, "-m", "rerun", str(path), "--bind", "127.0.0.1", *(["--web-viewer"] if web else [])]
        with contextlib.suppress(KeyboardInterrupt):
            status = _wait_for(command)
            if status:
                ports = "see its message above; it needs the ports 9090 and 9876"
                fix = ports if web else "without a screen, use --web or --save FILE"
                raise RunError(f"view: Rerun's viewer ended with exit status {status}; {fix}")


def _wait_for(command: list[str]) -> int:
    """Run the viewer until it is closed, or this process is to end; return its exit status.

    Rerun starts a process of its own, which would go on serving the video.
    """
    viewer = subprocess.Popen(command, start_new_session=True)
    try:
        return viewer.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(viewer.pid, signal.SIGTERM)
        viewer.wait()


def _record(output: Output, settings: PreviewSettings) -> tuple[bytes, Recording]:
    """Return an .rrd file and what it holds.

    On a full disk, Rerun's own file writer waits forever, or leaves out the rest and says nothing.
    """
    rr = _import_rerun()
    read = read_video(output, settings, persons=True)
    source = open_source_of(read.video, settings.source, settings.source_options)
    stream = rr.RecordingStream("featray", recording_id=f"{read.video.video_id}-{read.video.release}")
    encoded = stream.binary_stream()
    stream.send_blueprint(_layout(read), make_active=False)
    title = read.video.video_id if settings.blur else read.video.label
    stream.log("notes", rr.TextDocument(_notes(read, title), media_type=rr.MediaType.MARKDOWN), static=True)
    _log_faces(rr, stream, read)
    _log_signals(rr, stream, read.sampled)
    _log_events(rr, stream, read)
    frames = _log_video(rr, stream, source, read, settings)
    data: bytes = encoded.read()
    return data, Recording(frames, read.video)


def _import_rerun() -> ModuleType:
    # The viewer sends usage statistics unless this is set: https://docs.rs/re_analytics.
    os.environ.setdefault("CI", "1")
    try:
        import rerun
    except ImportError:
        raise UsageError("featray view needs Rerun: pip install 'featray[view]'") from None
    module: ModuleType = rerun
    return module


def _notes(read: VideoRead, title: str) -> str:
    video = read.video
    lines = [f"# {title}", f"`{video.video_id}`, release `{video.release}`, {len(read.sampled)} sampled frames"]
    if not video.weights_trained:
        lines.append(f"**{NO_MEANING}**")
    elif video.unusable:
        lines.append(f"**{NOT_ESTIMATED}{', '.join(video.unusable)}**")
    return "\n\n".join(lines)


def _times(rr: ModuleType, times_us: Iterable[int]) -> list[Any]:
    return [rr.TimeColumn("time", duration=np.array(list(times_us), "timedelta64[us]").astype("timedelta64[ns]"))]


def _log_faces(rr: ModuleType, stream: Any, read: VideoRead) -> None:
    """Log boxes and any meshes, one row per sampled frame: a frame without faces clears the previous ones."""
    times = _times(rr, (frame.pts_us for frame in read.sampled))
    faces = [face for frame in read.sampled for face in frame.faces]
    lengths = [len(frame.faces) for frame in read.sampled]
    boxes = np.array([face.box_xyxy for face in faces], np.float32).reshape(-1, 4)
    columns = rr.Boxes2D.columns(
        centers=(boxes[:, :2] + boxes[:, 2:]) / 2,
        half_sizes=(boxes[:, 2:] - boxes[:, :2]) / 2,
        labels=[" ".join(filter(None, (f"track {t}", read.persons.get(t)))) for t in (f.track_id for f in faces)],
        colors=[track_colour(face.track_id) for face in faces],
    )
    stream.send_columns("video/faces", times, columns.partition(lengths))
    meshes = [face.mesh_xyz for face in faces if face.mesh_xyz is not None]
    if not meshes or len(meshes) != len(faces):
        return
    stream.log("head", rr.ViewCoordinates.RDF, static=True)
    points = np.concatenate(meshes).astype(np.float32)
    colours = np.repeat(np.array([track_colour(face.track_id) for face in faces], np.uint8), len(meshes[0]), axis=0)
    vertices = [length * len(meshes[0]) for length in lengths]
    flat = rr.Points2D.columns(positions=points[:, :2], colors=colours)
    solid = rr.Points3D.columns(positions=points, colors=colours)
    stream.send_columns("video/mesh", times, flat.partition(vertices))
    stream.send_columns("head/mesh", times, solid.partition(vertices))


def _log_signals(rr: ModuleType, stream: Any, sampled: list[SampledFrame]) -> None:
    rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for frame in sampled:
        for face in frame.faces:
            rows.setdefault(face.track_id, []).append((frame.pts_us, face.row))
    for track, found in sorted(rows.items()):
        for group, columns in GROUPS.items():
            for column in columns:
                values = [(time, row[column]) for time, row in found if row[column] is not None]
                if values:
                    entity = f"signals/{group}/{column}/track_{track}"
                    scalars = rr.Scalars.columns(scalars=[value for _, value in values])
                    stream.send_columns(entity, _times(rr, (time for time, _ in values)), scalars)


def _log_events(rr: ModuleType, stream: Any, read: VideoRead) -> None:
    """Log each event as a state of its kind; an empty state ends it."""
    lanes: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for event in read.events:
        lane = lanes.setdefault((event.track_id, event.kind), [])
        lane += [(event.start_us, event.name), (max(event.end_us, event.start_us + 1), "")]
    for (track, kind), changes in sorted(lanes.items()):
        states = rr.StateChange.columns(state=[state for _, state in changes])
        entity = rr.new_entity_path(["events", f"track_{track}", kind])  # a kind is any text
        stream.send_columns(entity, _times(rr, (time for time, _ in changes)), states)


def _log_video(rr: ModuleType, stream: Any, source: Source, read: VideoRead, settings: PreviewSettings) -> int:
    """Log the frames as re-encoded H.264: they are upright, with square pixels, and may have hidden heads."""
    only_sampled = settings.only_sampled or settings.blur
    hidden = hidden_squares(read.sampled) if settings.blur else {}
    stream.log("video", rr.VideoStream(codec=rr.VideoCodec.H264), static=True)
    count = 0
    shown = source.run(read.sampled, settings.start_us, settings.end_us, only_sampled=only_sampled)
    for time_us, data in _encoded(_pictures(shown, hidden)):
        stream.set_time("time", duration=np.timedelta64(time_us, "us"))
        stream.log("video", rr.VideoStream.from_fields(sample=data))
        count += 1
    stream.reset_time()
    return count


def _pictures(shown: Iterator[Shown], hidden: dict[int, list[Any]]) -> Iterator[tuple[int, Image.Image]]:
    for item in shown:
        picture = Image.fromarray(item.frame.scaled_rgb(1.0))
        hide(picture, hidden.get(item.frame.index, []), 1.0)
        yield item.frame.time_us, picture


def _encoded(pictures: Iterator[tuple[int, Image.Image]]) -> Iterator[tuple[int, bytes]]:
    """Yield presentation time in µs and one access unit of H.264 (Annex B, no B-frames) for each picture."""
    context: Any = None
    size = (0, 0)
    for time_us, picture in pictures:
        array = np.asarray(picture)
        if context is None:
            size = (array.shape[1] + array.shape[1] % 2, array.shape[0] + array.shape[0] % 2)
            context = _encoder(size)
        if (array.shape[1], array.shape[0]) != size:  # an odd size, or the frame size changed in the stream
            array = np.asarray(picture.crop((0, 0, *size)))
        frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = time_us, _TICK
        for packet in context.encode(frame):
            yield packet.pts, bytes(packet)
    if context is not None:
        for packet in context.encode(None):
            yield packet.pts, bytes(packet)


def _encoder(size: tuple[int, int]) -> Any:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height = size
    context.pix_fmt, context.time_base, context.max_b_frames = "yuv420p", _TICK, 0
    context.gop_size = 60  # a seek decodes a second or two
    context.options = {"preset": "veryfast", "crf": "20"}
    return context


def _layout(read: VideoRead) -> Any:
    import rerun.blueprint as rrb

    curves = [rrb.TimeSeriesView(origin=f"signals/{group}", name=group.replace("_", " ")) for group in GROUPS]
    # The mesh of synthetic weights is noise, many times wider than the picture. It can be switched on in the viewer.
    contents = ["$origin/**", *([] if read.video.weights_trained else ["- $origin/mesh"])]
    left: list[Any] = [rrb.Spatial2DView(origin="video", contents=contents, name=read.video.video_id)]
    left += [rrb.StateTimelineView(origin="events", name="events")] if read.events else []
    heads = rrb.Spatial3DView(origin="head", name="mesh")
    right = [rrb.Tabs(*curves), rrb.Tabs(heads, rrb.TextDocumentView(origin="notes", name="notes"), active_tab=1)]
    return rrb.Blueprint(rrb.Horizontal(rrb.Vertical(*left), rrb.Vertical(*right)), collapse_panels=True)
