"""Tables. Turn the landed parts of a video into its rows: tracks and cuts over the whole video, counts, errors.

Parts are read in presentation order, one in memory at a time, and passed to the tables' writers.
Except for the run and the time of publishing, rows depend only on the landed parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featray.config_identify import IdentifyConfig
from featray.errors import ErrorCode, OutputError, RunError, counted
from featray.extract.plan import Picture, VideoPlan
from featray.faces.cadence import Cadence, taken_frames
from featray.faces.tracks import Tracker
from featray.records import digest_of_extra
from featray.schema import FACE_TABLES, TABLES
from featray.tables.commits import CommittedVideo, ManifestVideo
from featray.tables.landing import DAMAGED_PART, Part, PartHeader, landed_units, read_part, read_plan
from featray.tables.layout import Partition
from featray.tables.writer import TableWriter
from featray.video.shots import is_cut, read_thumbnail

_BOX: Final = ("box_x1", "box_y1", "box_x2", "box_y2")


@dataclass
class _Tally:
    frames_decoded: int = 0
    frames_sampled: int = 0
    frames_with_face: int = 0
    faces: int = 0
    bytes_read: int = 0
    picture: Picture = field(default_factory=Picture)
    errors: list[dict[str, Any]] = field(default_factory=list)
    last: PartHeader | None = None

    def add_error(self, code: str, message: str, *, stage: str = "decode", unit: int | None = None) -> None:
        """Add an error of the unit that was counted last, or of the whole video."""
        assert self.last is not None
        self.errors.append(
            {
                "unit": unit,
                "stage": stage,
                "error_code": str(code),
                "message": message,
                "attempt": self.last.attempt,
                "run_id": self.last.run_id,
                "at": _utc(self.last.at_us),
            }
        )


@dataclass(frozen=True)
class Embedded:
    """The choice of embeddings to publish.

    Attributes:
        embedder: name of the embedder that made them.
        every_us: length of the cadence's time slots.
    """

    embedder: str
    every_us: int

    @classmethod
    def of(cls, settings: IdentifyConfig) -> Embedded | None:
        """Return the embeddings that a config asks for, or None."""
        return cls(settings.embedder, settings.every_us) if settings.enabled else None


class Merged(NamedTuple):
    """A video whose rows have been written."""

    committed: CommittedVideo
    has_other_streams: bool


def merge_video(
    video: ManifestVideo,
    partition: Partition,
    writers: dict[str, TableWriter],
    *,
    run_id: str,
    published_at_us: int,
    embedded: Embedded | None = None,
) -> Merged:
    """Write a video's rows; return its entry for the commit, and whether it has other video streams.

    Args:
        video: the video's entry in the shard's manifest.
        partition: the partition where it has landed.
        writers: writers by table; feature tables without a writer are not written.
        run_id: the run that publishes.
        published_at_us: time of publishing in the row of `videos`, microseconds since the epoch, UTC.
        embedded: which embeddings are published; None for none.

    Raises:
        OutputError: what has landed is damaged.
        RunError: a unit of it has not landed.
    """
    folder = partition.landing(video.video_id, video.work_key)
    plan = read_plan(folder)
    there = landed_units(folder, with_lost=True) if plan else {}
    landed = {unit.index: there[unit.index] for unit in (plan.units if plan else ()) if unit.index in there}
    if plan is None or len(landed) != len(plan.units):
        raise RunError(f"{video.uri}: {counted(len(landed), 'unit')} landed; the shard cannot be published yet")
    constant: dict[str, str | None] = {
        "dataset": partition.dataset,
        "release": partition.release,
        "video_id": video.video_id,
        **video.fields,
    }
    tally, tracker, borders = _Tally(), Tracker(), _Borders()
    cadence = None if embedded is None else Cadence(embedded.every_us)
    for name in chain.from_iterable(landed.values()):
        part = read_part(folder.child(name))
        if not _is_whole(part):
            raise OutputError(f"{folder.child(name).uri}: {DAMAGED_PART}")
        part = borders.complete(part)
        track_ids = _track(part, tracker)
        _write_part(part, constant, writers, track_ids)
        if embedded is not None and cadence is not None:
            taken = taken_frames(part.frames, cadence)
            _write_embeddings(
                part, {**constant, "embedder": embedded.embedder}, writers["embeddings"], track_ids, taken
            )
        _count(part, tally)
    row = _video_row(video, plan, tally, tracker.count)
    times = {"run_id": run_id, "published_at": _utc(published_at_us)}
    writers["videos"].write_rows([{**constant, **row, **times}])
    writers["errors"].write_rows([{**constant, "uri": video.uri, **error} for error in tally.errors])
    committed = CommittedVideo(
        video_id=video.video_id,
        uri=video.uri,
        work_key=video.work_key,
        status=row["status"],
        frames=tally.frames_sampled,
        faces=tally.faces,
        extra_digest=digest_of_extra(video.extra),
    )
    return Merged(committed, row.get("other_streams") is not None)


def _is_whole(part: Part) -> bool:
    """Return whether its faces have boxes and are of its frames, in their order: what nobody landed may not be so."""
    frames, faces = (rows["frame_index"].to_numpy() for rows in (part.frames, part.faces))
    boxes = [part.faces[name].to_numpy() for name in _BOX]
    in_order = bool((np.diff(frames) > 0).all() and (np.diff(faces) >= 0).all() and np.isin(faces, frames).all())
    return in_order and all(np.isfinite(values).all() for values in boxes)


def _write_part(
    part: Part, constant: dict[str, str | None], writers: dict[str, TableWriter], track_ids: NDArray[np.int32]
) -> None:
    known = {**constant, "run_id": part.header.run_id}
    faces = _with_constants(part.faces, known).append_column("track_id", pa.array(track_ids))
    for table in FACE_TABLES:
        if table in writers:
            writers[table].write(faces)
    writers["frames"].write(_with_constants(part.frames, known))


def _write_embeddings(
    part: Part,
    constant: dict[str, str | None],
    writer: TableWriter,
    track_ids: NDArray[np.int32],
    frames: NDArray[np.int64],
) -> None:
    """Write the embeddings of these frames only: workers also embed the first frame of each part."""
    if "embedding" not in part.faces.column_names:  # a part without faces
        return
    faces = part.faces.append_column("track_id", pa.array(track_ids))
    taken = np.isin(faces["frame_index"].to_numpy(), frames) & faces["embedding"].is_valid().to_numpy()
    faces = faces.filter(pa.array(taken)).rename_columns(
        ["quality" if name == "embedding_quality" else name for name in faces.column_names]
    )
    writer.write(_with_constants(faces, {**constant, "run_id": part.header.run_id}))


def _with_constants(rows: pa.Table, constants: dict[str, str | None]) -> pa.Table:
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), rows.num_rows))
    return rows


class _Borders:
    """Finds cuts and repeated pictures at the borders between units; inside a unit they are known when it lands."""

    def __init__(self) -> None:
        self._before: bytes | None = None
        self._runs = _Runs()

    def complete(self, part: Part) -> Part:
        """Return the part with the first `shot_cut` of its unit and with `repeats` over the whole video.

        Parts must come in order. After a unit that broke off, `shot_cut` stays null and no repeat continues.
        """
        frames = self._runs.complete(part)
        # In an unrelated sequence every picture is already marked as a cut.
        if frames.num_rows and part.header.part == 0 and frames["shot_cut"][0].as_py() is None:
            cuts = [
                self._cut_before(frames["thumbnail"][0].as_py(), part.header.unit),
                *frames["shot_cut"].to_pylist()[1:],
            ]
            place = frames.schema.get_field_index("shot_cut")
            frames = frames.set_column(place, "shot_cut", pa.array(cuts, pa.bool_()))
        if frames.num_rows:
            self._before = frames["thumbnail"][-1].as_py()
        elif part.header.outcome is not None and part.outcome.failures:
            self._before = None
        return replace(part, frames=frames)

    def _cut_before(self, thumbnail: bytes | None, unit: int) -> bool | None:
        if unit == 0:
            return False
        if self._before is None or thumbnail is None:
            return None
        return is_cut(read_thumbnail(self._before), read_thumbnail(thumbnail))


class _Runs:
    """Joins runs of repeated frames if a unit begins with the picture that the previous unit ends with."""

    def __init__(self) -> None:
        self._digest: bytes | None = None
        self._first_index = -1
        """First frame of the run that the previous frame belongs to."""
        self._joined = -1, -1
        """The unit's first frame, and the first frame of its run."""

    def complete(self, part: Part) -> pa.Table:
        """Return the frames of a part with `repeats` over the whole video; parts must come in order."""
        frames = part.frames
        if not frames.num_rows:
            if part.header.outcome is not None and part.outcome.failures:
                self._digest = None
            return frames
        indices, repeats = frames["frame_index"].to_numpy(), frames["repeats"]
        if part.header.part == 0:
            digest = frames["digest"][0].as_py()
            goes_on = digest is not None and digest == self._digest
            self._joined = indices[0], self._first_index if goes_on else indices[0]
        first, joined = self._joined
        firsts = repeats.fill_null(-1).to_numpy()
        firsts = np.where(firsts < 0, indices, firsts)
        firsts = np.where(firsts == first, joined, firsts)
        self._digest, self._first_index = frames["digest"][-1].as_py(), firsts[-1]
        place = frames.schema.get_field_index("repeats")
        return frames.set_column(place, "repeats", pa.array(firsts, pa.int32(), mask=firsts == indices))


def _track(part: Part, tracker: Tracker) -> NDArray[np.int32]:
    """Return the track ids of a part's faces."""
    faces, frames = part.faces, part.frames
    boxes = np.column_stack([faces[name].to_numpy() for name in _BOX])
    ends = np.searchsorted(faces["frame_index"].to_numpy(), frames["frame_index"].to_numpy(), side="right")
    ids, start = [np.zeros(0, np.int32)], 0
    # Pictures without times are unrelated, so no track connects them and any time will do.
    times = frames["pts_us"].fill_null(0).to_pylist()
    for end, pts_us, cut in zip(ends.tolist(), times, frames["shot_cut"].to_pylist(), strict=True):
        ids.append(tracker.update(pts_us, boxes[start:end], shot_cut=bool(cut)))
        start = end
    return np.concatenate(ids)


def _count(part: Part, tally: _Tally) -> None:
    tally.last = part.header
    tally.faces += part.faces.num_rows
    tally.frames_sampled += part.frames.num_rows
    tally.frames_with_face += pc.sum(pc.greater(part.frames["faces"], 0)).as_py() or 0
    if part.header.outcome is None:
        return
    outcome = part.outcome
    tally.frames_decoded += outcome.frames_decoded
    tally.bytes_read += outcome.bytes_read
    tally.picture = Picture(**(tally.picture or outcome.picture))
    if outcome.picture.get("squared"):
        tally.picture["squared"] = True
    if outcome.picture.get("tone_mapped"):
        tally.picture["tone_mapped"] = True
    for stage, code, message in outcome.failures:
        tally.add_error(code, message, stage=stage, unit=part.header.unit)


def _video_row(video: ManifestVideo, plan: VideoPlan, tally: _Tally, tracks: int) -> dict[str, Any]:
    header = plan.header
    truncated = any(error["error_code"] == ErrorCode.TRUNCATED for error in tally.errors)
    if not tally.frames_decoded and not tally.errors:
        tally.add_error(ErrorCode.DECODE_FAILED, "no frame could be decoded")
    status = "ok" if not tally.errors else "partial" if tally.frames_decoded and tally.frames_sampled else "failed"
    known = {c.name for c in TABLES["videos"]}
    return {
        **{name: value for name, value in vars(video).items() if name in known},
        **({} if header is None else {"container": header.container, "codec": header.codec}),
        **({} if header is None else {"duration_us": header.duration_us, "time_base": header.time_base}),
        **({} if header is None else {"other_streams": header.other_streams}),
        **tally.picture,
        "frames_decoded": tally.frames_decoded,
        "frames_sampled": tally.frames_sampled,
        "frames_with_face": tally.frames_with_face,
        "faces": tally.faces,
        "bytes_read": plan.bytes_read + tally.bytes_read,
        "tracks": tracks,
        "status": status,
        "error_code": tally.errors[0]["error_code"] if tally.errors else None,
        "truncated": truncated,
    }


def _utc(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
