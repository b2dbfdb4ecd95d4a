"""Ground. The tables, defined once: every column's name, type, unit, range and meaning.

Writer, views, data dictionary, docs and tests are all derived from here. Only types that
DuckDB 1.4+ and Spark 3.5+ both read are used. Evolution is additive: a column may be
added (and SCHEMA_VERSION raised), never renamed, retyped or removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from featray.names import AU_NAMES_20, BLENDSHAPE_NAMES, EMOTION_NAMES_7

SCHEMA_VERSION: Final = 5
"""2 added `frames.shot_cut`; 3 the tables `tracks` and `events`, `frames.source_name`, `runs.conventions`, `runs.unusable`,
`videos.transfer`, `tone_mapped`, `squared` and `other_streams`; 4 the tables `embeddings` and `persons`; 5 `frames.repeats`."""

STRING, BOOL, INT32, INT64 = pa.string(), pa.bool_(), pa.int32(), pa.int64()
FLOAT, DOUBLE = pa.float32(), pa.float64()
TIMESTAMP = pa.timestamp("us", tz="UTC")
FLOATS = pa.list_(pa.float32())


@dataclass(frozen=True)
class Column:
    """One column of the data dictionary."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    range: str = ""


_DATASET = Column("dataset", STRING, "name of the dataset; a partition")
_RELEASE = Column("release", STRING, "model and settings that made the row; a partition")
_VIDEO = Column("video_id", STRING, "which video, or sequence of pictures: first 16 hex digits of sha256 of its URI")
_FRAME = Column("frame_index", INT32, "position of the frame in presentation order", "frames", ">= 0")
_PTS = Column(
    "pts_us",
    INT64,
    "presentation time from the stream, never index / rate; of pictures: from input.sequence_fps or a manifest, or null",
    "µs",
)
_FACE = Column("face_index", INT32, "face within the frame, by descending score, ties by x", "", ">= 0")
_RUN = Column("run_id", STRING, "the run that made the row; joins `runs`")
_TRACK = Column("track_id", INT32, "the same face over time, within one shot of a video", "", ">= 0")

KEY = (_DATASET, _RELEASE, _VIDEO, _FRAME, _PTS)

AU_MEANINGS: Final[dict[str, str]] = dict(
    zip(
        AU_NAMES_20,
        (
            "inner brow raiser", "outer brow raiser", "brow lowerer", "upper lid raiser", "cheek raiser",
            "lid tightener", "nose wrinkler", "upper lip raiser", "nasolabial deepener", "lip corner puller",
            "dimpler", "lip corner depressor", "chin raiser", "lip stretcher", "lip tightener",
            "lip pressor", "lips part", "jaw drop", "lip suck", "eyes closed",
        ),
        strict=True,
    )
)  # fmt: skip

FACES = (
    *KEY, _FACE, _RUN, _TRACK,
    Column("box_x1", FLOAT, "left side of the face box, in the upright original frame", "px"),
    Column("box_y1", FLOAT, "top side of the face box", "px"),
    Column("box_x2", FLOAT, "right side of the face box", "px"),
    Column("box_y2", FLOAT, "bottom side of the face box", "px"),
    Column("score", FLOAT, "the detector's score", "", "[0, 1]"),
    Column("interpolated", BOOL, "whether box, score and landmarks are interpolated between detections, linearly in time (detect.every > 1)"),
    Column("landmarks5", FLOATS, "x, y of subject's right eye, left eye, nose tip, right and left mouth corner; null for boxes that came without", "px", "10 values"),
    Column("crop_x", FLOAT, "left side of the square that was cut for the network", "px"),
    Column("crop_y", FLOAT, "top side of that square", "px"),
    Column("crop_side", FLOAT, "side of that square", "px", ">= 1"),
    *(Column(au, FLOAT, f"FACS action unit: {meaning}; a probability, not an intensity", "", "[0, 1]") for au, meaning in AU_MEANINGS.items()),
    *(Column(f"emotion_{e}", FLOAT, f"share of {e}; the seven sum to 1", "", "[0, 1]") for e in EMOTION_NAMES_7),
    Column("valence", FLOAT, "unpleasant to pleasant", "", "[-1, 1]"),
    Column("arousal", FLOAT, "calm to excited", "", "[-1, 1]"),
    Column("gaze_yaw", FLOAT, "gaze direction, horizontal; positive is the subject's left, the image's right", "rad"),
    Column("gaze_pitch", FLOAT, "gaze direction, vertical; positive is up", "rad"),
    Column("gaze_angle", FLOAT, "angle between gaze and the camera axis", "rad", "[0, pi]"),
    Column("pose_pitch", FLOAT, "head pitch; positive is up; v2.5 does not estimate it (runs.unusable)", "rad"),
    Column("pose_roll", FLOAT, "head roll; positive tilts to the subject's right", "rad"),
    Column("pose_yaw", FLOAT, "head yaw; positive turns to the subject's right", "rad"),
    Column("pose_x", FLOAT, "head position as the network gives it, x", "model units"),
    Column("pose_y", FLOAT, "head position as the network gives it, y", "model units"),
    Column("pose_z", FLOAT, "head position as the network gives it, z", "model units"),
    Column("face_px", FLOAT, "shorter side of the face box", "px", ">= 1"),
    Column("sharpness", FLOAT, "variance of the Laplacian of the chip's luma (BT.601): of what the network sees, so a face that was enlarged counts as blurred", "grey levels²", ">= 0"),
    Column("in_frame", FLOAT, "share of the cut square that lies inside the frame", "", "[0, 1]"),
)  # fmt: skip

BLENDSHAPES = (
    *KEY, _FACE, _RUN, _TRACK,
    *(Column(name, FLOAT, f"MediaPipe blendshape {name}", "", "[0, 1]") for name in BLENDSHAPE_NAMES),
)  # fmt: skip

MESH = (
    *KEY, _FACE, _RUN, _TRACK,
    Column("mesh_xyz", FLOATS, "478 MediaPipe vertices, x, y, z one vertex after the other; x, y in frame px, z relative depth", "px", "1434 values"),
)  # fmt: skip

FRAMES = (
    *KEY, _RUN,
    Column("status", STRING, "what became of the sampled frame: faces found, none found, or none found in a picture that came out damaged", "", "ok | no_face | decode_error"),
    Column("faces", INT32, "faces found in it", "faces", ">= 0"),
    Column("keyframe", BOOL, "whether it is a keyframe of the stream"),
    Column("source_name", STRING, "name of the picture in its folder or tar, where the video is a sequence of pictures, else null"),
    Column("shot_cut", BOOL, "whether it is the first sampled frame after a cut; null if the sampled frame before it is not known"),
    Column("repeats", INT32, "frame_index of the first of the sampled frames in a row whose decoded pictures are equal to the bit, up to this one; null for that first one, so where the picture before is another or not known, and in rows older than this column", "frames", ">= 0"),
)  # fmt: skip

VIDEOS = (
    _DATASET, _RELEASE, _VIDEO,
    Column("uri", STRING, "where the video is, without credentials or query"),
    Column("member", STRING, "name inside a shard file, else null"),
    Column("extra", STRING, "the other columns of the manifest that named the video, as JSON, else null"),
    Column("size_bytes", INT64, "size of the object or member; -1 if not known", "bytes"),
    Column("content_id", STRING, "etag or modification time and size, or sha256 of the bytes"),
    Column("work_key", STRING, "sha256 over content, weights, detector and settings"),
    Column("container", STRING, "FFmpeg's name of the container; image2 for a sequence of pictures"),
    Column("codec", STRING, "FFmpeg's name of the codec; of pictures: of most of them"),
    Column("width", INT32, "width of the upright frame, with square pixels where `squared`", "px"),
    Column("height", INT32, "height of that frame", "px"),
    Column("rotation", INT32, "counterclockwise turn applied to make frames upright", "degrees", "0 | 90 | 180 | 270"),
    Column("mirrored", BOOL, "whether stored frames were flipped left to right, before that turn, to make them upright"),
    Column("sar", STRING, "sample aspect ratio as stored: width of a pixel over its height"),
    Column("squared", BOOL, "whether frames were stretched so that pixels are square (decode.square_pixels); null if it was not known then, and they were not"),
    Column("transfer", STRING, "FFmpeg's name of the transfer characteristic as stored; arib-std-b67 (HLG) and smpte2084 (PQ) are HDR; null if it was not looked at"),
    Column("tone_mapped", BOOL, "whether HDR was mapped to BT.709 SDR before faces were looked for (decode.tone_map); null if it was not known then, and it was not"),
    Column("duration_us", INT64, "duration that the header states", "µs"),
    Column("time_base", STRING, "seconds a tick of the stream's timestamps"),
    Column("other_streams", STRING, "video streams of the file that were not taken (the default one is, else the longest, else the largest), else null"),
    Column("frames_decoded", INT64, "frames decoded", "frames"),
    Column("frames_sampled", INT64, "frames sampled; the rows in `frames`", "frames"),
    Column("frames_with_face", INT64, "sampled frames with a face", "frames"),
    Column("faces", INT64, "rows in `faces`", "faces"),
    Column("bytes_read", INT64, "fetched from the storage to plan and decode, to the block; 0 on a local disk", "bytes"),
    Column("tracks", INT32, "distinct track_id", "tracks"),
    Column("status", STRING, "ok: all of it; partial: what could be decoded; failed: nothing", "", "ok | partial | failed"),
    Column("error_code", STRING, "the first error's code, null if ok"),
    Column("truncated", BOOL, "whether the file ends before its own structure says that it should"),
    _RUN,
    Column("published_at", TIMESTAMP, "when the rows became visible"),
)  # fmt: skip

ERRORS = (
    _DATASET, _RELEASE, _VIDEO,
    Column("uri", STRING, "where the video is, without credentials or query"),
    Column("unit", INT32, "position of the unit in the video, null for the whole video"),
    Column("stage", STRING, "where it happened", "", "plan | decode | detect | infer | reconcile"),
    Column("error_code", STRING, "what happened, from the closed list of codes"),
    Column("message", STRING, "one line for people"),
    Column("attempt", INT32, "which attempt", "", ">= 1"),
    _RUN,
    Column("at", TIMESTAMP, "when"),
)  # fmt: skip

RUNS = (
    _RUN,
    Column("started_at", TIMESTAMP, "when the run started"),
    Column("finished_at", TIMESTAMP, "when it ended, null while it runs"),
    Column("status", STRING, "state of the run", "", "running | done | done_with_failures | failed | interrupted"),
    _DATASET, _RELEASE,
    Column("config", STRING, "the whole config as YAML, secrets redacted"),
    Column("config_hash", STRING, "sha256 of the settings that change results"),
    Column("featray_version", STRING, "version of featray"),
    Column("featray_commit", STRING, "git commit of featray, null outside a checkout"),
    Column("model_name", STRING, "name of the checkpoint"),
    Column("model_file", STRING, "where the checkpoint came from"),
    Column("weights_sha256", STRING, "sha256 of the checkpoint file"),
    Column("hub_revision", STRING, "commit on the model hub, null for local files"),
    Column("license", STRING, "licence of the weights"),
    Column("weights_trained", BOOL, "false for synthetic weights: facial numbers then carry no meaning"),
    Column("conventions", STRING, "signs of head pose and gaze: a name, then each column's formula of the network's raw numbers (p: pose head, g: gaze head); null before there was a choice: py-feat-2.1.2"),
    Column("unusable", STRING, "columns that this checkpoint is known not to estimate, whatever they hold, separated by commas; empty if none is known, null from an older featray"),
    Column("recipe", STRING, "from chip to network input", "", "pyfeat | card-center-crop"),
    Column("engine", STRING, "what ran the network", "", "torch | openvino"),
    Column("precision", STRING, "arithmetic of the network", "", "fp32 | bf16"),
    Column("detector", STRING, "name of the face detector"),
    Column("detector_sha256", STRING, "sha256 of its weights, or of the file of boxes (of its etag and size, where the storage has etags)"),
    Column("decoder", STRING, "decoding backend and its version"),
    Column("ffmpeg", STRING, "versions of FFmpeg's libraries"),
    Column("versions", STRING, "versions of python and of the libraries that numbers and files come from, as JSON"),
    Column("cpu", STRING, "CPU model of the driver's machine"),
    Column("gpu", STRING, "GPU model of the inference workers, null without"),
    Column("videos_ok", INT64, "videos published whole", "videos"),
    Column("videos_partial", INT64, "videos published in part", "videos"),
    Column("videos_failed", INT64, "videos of which nothing could be used", "videos"),
    Column("frames", INT64, "frames sampled", "frames"),
    Column("faces", INT64, "faces written", "faces"),
    Column("frames_per_s", DOUBLE, "frames a second over the whole run, start-up included", "1/s"),
    Column("faces_per_s", DOUBLE, "faces a second over the whole run, start-up included", "1/s"),
)  # fmt: skip

ERASURES = (
    _DATASET, _RELEASE, _VIDEO,
    Column("erasure_id", STRING, "which erasure; a video may be erased, allowed again and erased again"),
    Column("track_id", INT32, "the track that was erased, null if the whole video was"),
    *(Column(f"{t}_removed", INT64, f"rows removed from `{t}`", "rows", ">= 0") for t in ("faces", "blendshapes", "mesh", "frames", "videos", "errors", "tracks", "events", "embeddings", "persons")),
    Column("reason", STRING, "as given by whoever erased, else null"),
    Column("erased_at", TIMESTAMP, "when"),
)  # fmt: skip

_DERIVATION = Column("derivation", STRING, "settings that made the row from published faces; a partition")
_OF_TRACK = (_DATASET, _RELEASE, _DERIVATION, _VIDEO, Column("track_id", INT32, "as in `faces`", "", ">= 0"))

DESCRIBED: Final = (
    *AU_NAMES_20, *(f"emotion_{e}" for e in EMOTION_NAMES_7),
    "valence", "arousal", "gaze_yaw", "gaze_pitch", "gaze_angle", "pose_pitch", "pose_roll", "pose_yaw",
)  # fmt: skip
"""Columns of `faces` that `tracks` describes."""

_STATISTICS = {
    "mean": "mean over the time that the face was seen", "sd": "standard deviation over that time",
    "p05": "at or below this for 5 % of that time", "p50": "median over that time", "p95": "at or below this for 95 % of that time",
}  # fmt: skip

ASYMMETRIES: Final = (
    "browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown",
    "mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip
"""Blendshapes of which there is one for the left and one for the right, by what their names share."""


def _described(name: str) -> tuple[Column, ...]:
    source = next(column for column in FACES if column.name == name)
    spread = {"sd": ">= 0"}
    return tuple(
        Column(f"{name}_{kind}", FLOAT, f"{name}: {meaning}", source.unit, spread.get(kind, source.range))
        for kind, meaning in _STATISTICS.items()
    )


def _of_action_unit(name: str) -> tuple[Column, ...]:
    return (
        *_described(name),
        Column(f"{name}_baseline", FLOAT, f"{name} when nothing happens, as derive.baseline says; null for none", "", "[0, 1]"),
        Column(f"{name}_active", FLOAT, f"share of the time seen that is in an episode of {name}; null if thresholds count from a baseline that is not known", "", "[0, 1]"),
        Column(f"{name}_episodes", INT32, f"episodes of {name}; rows in `events`; null where {name}_active is", "episodes", ">= 0"),
        Column(f"{name}_episode_s", FLOAT, f"mean duration of an episode of {name}; null without any", "s", ">= 0"),
    )  # fmt: skip


TRACKS = (
    *_OF_TRACK,
    Column("start_us", INT64, "presentation time of its first face", "µs"),
    Column("end_us", INT64, "presentation time of its last face", "µs"),
    Column("frames", INT32, "faces of the track; its rows in `faces`", "frames", ">= 1"),
    Column("seen_s", FLOAT, "time that its samples stand for, without gaps; all shares are shares of it", "s", ">= 0"),
    Column("faces_per_s", FLOAT, "samples a second while it was seen; null for a single one", "1/s", ">= 0"),
    Column("coverage", FLOAT, "share of the sampled frames from its start to its end that have its face", "", "[0, 1]"),
    Column("face_px_median", FLOAT, "median of face_px", "px", ">= 1"),
    Column("sharpness_median", FLOAT, "median of sharpness", "grey levels²", ">= 0"),
    Column("in_frame_median", FLOAT, "median of in_frame", "", "[0, 1]"),
    *(column for name in AU_NAMES_20 for column in _of_action_unit(name)),
    *(column for name in DESCRIBED if name not in AU_NAMES_20 for column in _described(name)),
    Column("gaze_on_camera", FLOAT, "share of the time seen with gaze_angle below derive.gaze_away.on_at", "", "[0, 1]"),
    Column("blinks", INT32, "blinks; null where the sampling cannot show them", "blinks", ">= 0"),
    Column("blinks_per_min", FLOAT, "blinks a minute of the time seen; null where the sampling cannot show them", "1/min", ">= 0"),
    *(Column(f"asymmetry_{name}", FLOAT, f"mean of {name}Left minus {name}Right; left is the subject's", "", "[-1, 1]") for name in ASYMMETRIES),
    Column("asymmetry_mesh_mouth", FLOAT, "how much higher the left corner of the mouth is than the right one; left is the subject's", "distances of the outer eye corners"),
    Column("asymmetry_mesh_brows", FLOAT, "how much higher the left brow is than the right one; left is the subject's", "distances of the outer eye corners"),
)  # fmt: skip

EVENTS = (
    *_OF_TRACK,
    Column("event_id", INT32, "which event of the track, from 0 by start, then kind", "", ">= 0"),
    Column("kind", STRING, "an action unit, blink, smile, emotion_<name>, gaze_away, nod, shake, or a name of derive.events"),
    Column("side", STRING, "of the subject, for blinks", "", "left | right | both"),
    Column("variant", STRING, "of smiles: whether AU06 was there for at least half of the time; null where AU06_active is", "", "with_AU06 | without_AU06"),
    Column("start_us", INT64, "presentation time of its first sample", "µs"),
    Column("peak_us", INT64, "presentation time of its strongest sample, the first of equals", "µs"),
    Column("end_us", INT64, "presentation time of its last sample", "µs"),
    Column("peak", FLOAT, "the signal there, in the unit of its column"),
    Column("mean", FLOAT, "mean of the signal over its time"),
    Column("frames", INT32, "samples that it rests on", "frames", ">= 1"),
    Column("open_start", BOOL, "whether the track's start, a cut or a gap hides how it began"),
    Column("open_end", BOOL, "whether the track's end, a cut or a gap hides how it ended"),
)  # fmt: skip

EMBEDDINGS = (
    *KEY, _FACE, _RUN, _TRACK,
    Column("embedder", STRING, "which network made it"),
    Column("quality", FLOAT, "how well the face is seen: size, sharpness, how frontal it is and how much of it is in the frame", "", "[0, 1]"),
    Column("embedding", FLOATS, "vector of length 1; those of one person have a large cosine. Biometric data"),
)  # fmt: skip

PERSONS = (
    _DATASET, _RELEASE,
    Column("clustering", STRING, "settings that made the row from embeddings; a partition"),
    _VIDEO,
    Column("track_id", INT32, "as in `faces`", "", ">= 0"),
    Column("person_id", STRING, "the same person in all videos of the release; stays when videos are added"),
    Column("similarity", FLOAT, "cosine of the track's mean embedding and its person's", "", "[-1, 1]"),
    Column("margin", FLOAT, "similarity, minus the cosine with the nearest other person's; null if there is no other", "", "[-2, 2]"),
    Column("previous", STRING, "the person_id that the track had before its present one; else null. Where no track has that id as `person_id` any more, its person was merged, else tracks left it"),
    Column("name", STRING, "of the person, where `featray persons --gallery` knew one; else null"),
)  # fmt: skip

TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "faces": FACES,
    "blendshapes": BLENDSHAPES,
    "mesh": MESH,
    "frames": FRAMES,
    "videos": VIDEOS,
    "errors": ERRORS,
    "runs": RUNS,
    "erasures": ERASURES,
    "tracks": TRACKS,
    "events": EVENTS,
}

PRIVATE_TABLES: Final[dict[str, tuple[Column, ...]]] = {"embeddings": EMBEDDINGS}
"""What identifies people, only written where `identify:` asks for it. In no view, export or report, and not in `TABLES`, so
that it is left out wherever it is not asked for by name."""

PERSON_TABLES: Final[dict[str, tuple[Column, ...]]] = {"persons": PERSONS}
"""Only written by `featray persons`, in a commit of its own. A view as the others, and not in `TABLES` for the same reason."""

ALL_TABLES: Final[dict[str, tuple[Column, ...]]] = {**TABLES, **PRIVATE_TABLES, **PERSON_TABLES}
"""What commits may name, and what is verified, erased and compacted."""

TABLE_MEANINGS: Final[dict[str, str]] = {
    "faces": "one row a face a sampled frame: box, action units, emotions, valence and arousal, gaze, head pose, quality",
    "blendshapes": "one row a face: the 52 MediaPipe blendshapes",
    "mesh": "one row a face: the 478-vertex mesh in frame pixels",
    "frames": "one row for every sampled frame, with a face or without",
    "videos": "one row a video: what it is and how it went",
    "errors": "one row an error",
    "runs": "one row a run: configuration, weights, versions, machine, counts",
    "erasures": "one row an erasure: which video or track, how many rows; nothing that says who it was",
    "tracks": "one row a track: when, how well seen, statistics of every signal, episodes, blinks, asymmetry; derived from `faces`",
    "events": "one row an event: episodes of action units, smiles, emotions, blinks, gaze away, nods, shakes; derived from `faces`",
    "embeddings": "one row a face that was embedded (identify.enabled): biometric data; in no view, export or report",
    "persons": "one row a track with embeddings: which person it is of, and how sure that is; made by `featray persons`",
}

FACE_TABLES: Final = ("faces", "blendshapes", "mesh")
PER_VIDEO_TABLES: Final = (*FACE_TABLES, "frames", "videos", "errors")
DERIVED_TABLES: Final = ("tracks", "events")
"""What is made from published rows by `derive:`; further files of the commit whose rows they are made from."""

SORT_KEYS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys((*FACE_TABLES, *PRIVATE_TABLES), ("video_id", "pts_us", "frame_index", "face_index")),
    "frames": ("video_id", "pts_us"),
    "videos": ("video_id",),
    "errors": ("video_id",),
    "runs": ("run_id",),
    "erasures": ("video_id",),
    "tracks": ("video_id", "track_id"),
    "events": ("video_id", "track_id", "event_id"),
    "persons": ("video_id", "track_id"),
}
"""How rows are ordered within a file. `frame_index` never disagrees with `pts_us` and settles ties: streams have frames
with the same time, and a clock that jitters gives more of them."""

ROWS_A_GROUP: Final[dict[str, int]] = {
    table: 8_192 if table in ("mesh", "embeddings") else 122_880 for table in ALL_TABLES
}
"""Row-group length; a mesh row weighs some 6 KB, so its groups are smaller."""


def arrow_schema(table: str, path_fields: tuple[str, ...] = ()) -> pa.Schema:
    """The Arrow schema of a table, with column comments; path fields follow as nullable strings."""
    columns = columns_of(table)
    extra = (
        ()
        if table in ("runs", "erasures", "persons")
        else tuple(Column(n, STRING, f"part of the path: {n}; a partition") for n in path_fields)
    )
    return pa.schema([_field(column) for column in (*columns, *extra)])


def columns_of(table: str) -> tuple[Column, ...]:
    """Return the columns of a table, whichever it is."""
    return TABLES[table] if table in TABLES else ALL_TABLES[table]


def _field(column: Column) -> pa.Field:
    comment = column.meaning
    if column.unit:
        comment += f" [{column.unit}]"
    if column.range:
        comment += f"; {column.range}"
    return pa.field(column.name, column.type, metadata={"comment": comment, "unit": column.unit, "range": column.range})


_ADDED_BY_PUBLISH = {"dataset", "release", "video_id", "run_id", "track_id"}
_DETECTED = (
    "frame_index pts_us face_index box_x1 box_y1 box_x2 box_y2 score interpolated landmarks5 "
    "crop_x crop_y crop_side face_px sharpness in_frame"
).split()


def _landed(columns: Iterator[Column]) -> pa.Schema:
    fields = {c.name: pa.field(c.name, c.type) for c in columns if c.name not in _ADDED_BY_PUBLISH}
    return pa.schema(list(fields.values()))


DETECTED_SCHEMA = pa.schema(
    [*(pa.field(name, arrow_schema("faces").field(name).type) for name in _DETECTED), pa.field("chip", INT32)]
)
"""What is known of a face before inference; `chip` says which of its chunk's chips shows it. Faces share one where frames
repeat."""

LANDED_SCHEMA = _landed(iter((*FACES, *BLENDSHAPES, *MESH)))
"""A face with everything the network says, before it is split over the tables."""

EMBEDDED_SCHEMA = pa.schema([("embedding", FLOATS), ("embedding_quality", FLOAT)])
"""What landed faces have beside LANDED_SCHEMA where embeddings are made; null in rows without one."""

FRAMES_SCHEMA = pa.schema([*_landed(iter(FRAMES)), pa.field("thumbnail", pa.binary()), pa.field("digest", pa.binary())])
"""A frame; `thumbnail` (shots.py) and `digest` (repeats.py) are given with a unit's first and last frame. The first one's
`shot_cut` is null, and its `repeats`: whether there is a cut between two units, and whether one goes on with the picture of
the other, is seen when both have landed."""
