"""Ground. The single definition of the tables: every column's name, type, unit, range and meaning.

Writer, views, data dictionary, docs and tests are all derived from it. Only types that both
DuckDB 1.4+ and Spark 3.5+ read are used. Evolution is additive: a column may be added
(and SCHEMA_VERSION raised), never renamed, retyped or removed.
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
_VIDEO = Column(
    "video_id", STRING, "id of the video or sequence of pictures: first 16 hex digits of the sha256 of its URI"
)
_FRAME = Column("frame_index", INT32, "position of the frame in presentation order", "frames", ">= 0")
_PTS = Column(
    "pts_us",
    INT64,
    "presentation time from the stream, never index / rate; for pictures from input.sequence_fps or a manifest, else null",
    "µs",
)
_FACE = Column("face_index", INT32, "face within the frame, by descending score, ties by x", "", ">= 0")
_RUN = Column("run_id", STRING, "the run that wrote the row; joins `runs`")
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
    Column("landmarks5", FLOATS, "x, y of subject's right eye, left eye, nose tip, right and left mouth corner; null for boxes without landmarks", "px", "10 values"),
    Column("crop_x", FLOAT, "left side of the square crop given to the network", "px"),
    Column("crop_y", FLOAT, "top side of the crop", "px"),
    Column("crop_side", FLOAT, "side length of the crop", "px", ">= 1"),
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
    Column("sharpness", FLOAT, "variance of the Laplacian of the chip's luma (BT.601), the network's input, so an enlarged face counts as blurred", "grey levels²", ">= 0"),
    Column("in_frame", FLOAT, "share of the crop that lies inside the frame", "", "[0, 1]"),
)  # fmt: skip

BLENDSHAPES = (
    *KEY, _FACE, _RUN, _TRACK,
    *(Column(name, FLOAT, f"MediaPipe blendshape {name}", "", "[0, 1]") for name in BLENDSHAPE_NAMES),
)  # fmt: skip

MESH = (
    *KEY, _FACE, _RUN, _TRACK,
    Column("mesh_xyz", FLOATS, "478 MediaPipe vertices as x, y, z, vertex by vertex; x, y in frame px, z relative depth", "px", "1434 values"),
)  # fmt: skip

FRAMES = (
    *KEY, _RUN,
    Column("status", STRING, "outcome of the sampled frame: faces found, none found, or none found in a damaged picture", "", "ok | no_face | decode_error"),
    Column("faces", INT32, "faces found in it", "faces", ">= 0"),
    Column("keyframe", BOOL, "whether it is a keyframe of the stream"),
    Column("source_name", STRING, "name of the picture in its folder or tar if the video is a sequence of pictures, else null"),
    Column("shot_cut", BOOL, "whether it is the first sampled frame after a cut; null if the previous sampled frame is unknown"),
    Column("repeats", INT32, "if the decoded picture is bit-identical to that of the previous sampled frame: frame_index of the first frame of this run of identical pictures; null if the picture differs, if the previous one is unknown, and in rows older than this column", "frames", ">= 0"),
)  # fmt: skip

VIDEOS = (
    _DATASET, _RELEASE, _VIDEO,
    Column("uri", STRING, "where the video is, without credentials or query"),
    Column("member", STRING, "name inside a shard file, else null"),
    Column("extra", STRING, "other columns of the video's manifest row, as JSON, else null"),
    Column("size_bytes", INT64, "size of the object or member; -1 if unknown", "bytes"),
    Column("content_id", STRING, "etag or modification time and size, or sha256 of the bytes"),
    Column("work_key", STRING, "sha256 over content, weights, detector and settings"),
    Column("container", STRING, "FFmpeg's name of the container; image2 for a sequence of pictures"),
    Column("codec", STRING, "FFmpeg's name of the codec; for pictures, the most common one"),
    Column("width", INT32, "width of the upright frame, with square pixels where `squared`", "px", ">= 0"),
    Column("height", INT32, "height of the upright frame, as for `width`", "px", ">= 0"),
    Column("rotation", INT32, "counterclockwise turn applied to make frames upright", "degrees", "0 | 90 | 180 | 270"),
    Column("mirrored", BOOL, "whether stored frames were flipped left to right before the rotation"),
    Column("sar", STRING, "sample aspect ratio as stored: width of a pixel over its height"),
    Column("squared", BOOL, "whether frames were stretched to square pixels (decode.square_pixels); null in rows older than this column, whose frames were not"),
    Column("transfer", STRING, "FFmpeg's name of the transfer characteristic as stored; arib-std-b67 (HLG) and smpte2084 (PQ) are HDR; null if it was not examined"),
    Column("tone_mapped", BOOL, "whether HDR was mapped to BT.709 SDR before face detection (decode.tone_map); null in rows older than this column, which were not mapped"),
    Column("duration_us", INT64, "duration that the header states", "µs"),
    Column("time_base", STRING, "seconds per tick of the stream's timestamps"),
    Column("other_streams", STRING, "video streams of the file that were not processed (the default stream is taken, else the longest, else the largest), else null"),
    Column("frames_decoded", INT64, "frames decoded", "frames", ">= 0"),
    Column("frames_sampled", INT64, "frames sampled; the rows in `frames`", "frames", ">= 0"),
    Column("frames_with_face", INT64, "sampled frames with a face", "frames", ">= 0"),
    Column("faces", INT64, "rows in `faces`", "faces", ">= 0"),
    Column("bytes_read", INT64, "bytes fetched from the storage for planning and decoding, counted in blocks; 0 on a local disk", "bytes", ">= 0"),
    Column("tracks", INT32, "distinct track_id", "tracks", ">= 0"),
    Column("status", STRING, "ok: fully processed; partial: only the decodable part; failed: nothing", "", "ok | partial | failed"),
    Column("error_code", STRING, "the first error's code, null if ok"),
    Column("truncated", BOOL, "whether the file ends before its own structure says it should"),
    _RUN,
    Column("published_at", TIMESTAMP, "when the rows became visible"),
)  # fmt: skip

ERRORS = (
    _DATASET, _RELEASE, _VIDEO,
    Column("uri", STRING, "where the video is, without credentials or query"),
    Column("unit", INT32, "position of the unit in the video, null for the whole video"),
    Column("stage", STRING, "where it happened", "", "plan | decode | detect | infer | reconcile"),
    Column("error_code", STRING, "error code, from the closed list"),
    Column("message", STRING, "one human-readable line"),
    Column("attempt", INT32, "number of the attempt", "", ">= 1"),
    _RUN,
    Column("at", TIMESTAMP, "when"),
)  # fmt: skip

RUNS = (
    _RUN,
    Column("started_at", TIMESTAMP, "start of the run"),
    Column("finished_at", TIMESTAMP, "end of the run, null while it runs"),
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
    Column("conventions", STRING, "signs of head pose and gaze: a name, then each column's formula over the network's raw numbers (p: pose head, g: gaze head); null in rows older than this column, which have py-feat-2.1.2"),
    Column("unusable", STRING, "columns that this checkpoint is known not to estimate, separated by commas; their values mean nothing; empty if none is known, null from an older featray"),
    Column("recipe", STRING, "how a chip becomes the network's input", "", "pyfeat | card-center-crop"),
    Column("engine", STRING, "engine that ran the network", "", "torch | openvino"),
    Column("precision", STRING, "arithmetic of the network", "", "fp32 | bf16"),
    Column("detector", STRING, "name of the face detector"),
    Column("detector_sha256", STRING, "sha256 of its weights or of the file of boxes (of its etag and size if the storage has etags)"),
    Column("decoder", STRING, "decoding backend and its version"),
    Column("ffmpeg", STRING, "versions of FFmpeg's libraries"),
    Column("versions", STRING, "versions of Python and of the libraries that compute numbers and write files, as JSON"),
    Column("cpu", STRING, "CPU model of the driver's machine"),
    Column("gpu", STRING, "GPU model of the inference workers, null without a GPU"),
    Column("videos_ok", INT64, "videos published whole", "videos", ">= 0"),
    Column("videos_partial", INT64, "videos published in part", "videos", ">= 0"),
    Column("videos_failed", INT64, "videos without any usable part", "videos", ">= 0"),
    Column("frames", INT64, "frames sampled", "frames", ">= 0"),
    Column("faces", INT64, "faces written", "faces", ">= 0"),
    Column("frames_per_s", DOUBLE, "frames per second over the whole run, including start-up", "1/s", ">= 0"),
    Column("faces_per_s", DOUBLE, "faces per second over the whole run, including start-up", "1/s", ">= 0"),
)  # fmt: skip

ERASURES = (
    _DATASET, _RELEASE, _VIDEO,
    Column("erasure_id", STRING, "id of the erasure; a video may be erased, allowed again and erased again"),
    Column("track_id", INT32, "the erased track, null if the whole video was erased"),
    *(Column(f"{t}_removed", INT64, f"rows removed from `{t}`", "rows", ">= 0") for t in ("faces", "blendshapes", "mesh", "frames", "videos", "errors", "tracks", "events", "embeddings", "persons")),
    Column("reason", STRING, "reason given with the erasure, else null"),
    Column("erased_at", TIMESTAMP, "when the rows were removed"),
)  # fmt: skip

_DERIVATION = Column("derivation", STRING, "settings that derived the row from published faces; a partition")
_OF_TRACK = (_DATASET, _RELEASE, _DERIVATION, _VIDEO, Column("track_id", INT32, "as in `faces`", "", ">= 0"))

DESCRIBED: Final = (
    *AU_NAMES_20, *(f"emotion_{e}" for e in EMOTION_NAMES_7),
    "valence", "arousal", "gaze_yaw", "gaze_pitch", "gaze_angle", "pose_pitch", "pose_roll", "pose_yaw",
)  # fmt: skip
"""Columns of `faces` for which `tracks` has statistics."""

_STATISTICS = {
    "mean": "mean over the time seen", "sd": "standard deviation over the time seen",
    "p05": "5th percentile over the time seen", "p50": "median over the time seen", "p95": "95th percentile over the time seen",
}  # fmt: skip

ASYMMETRIES: Final = (
    "browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown",
    "mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip
"""Names of blendshapes that exist as a left and a right one, without `Left` and `Right`."""


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
        Column(f"{name}_baseline", FLOAT, f"resting value of {name}, according to derive.baseline; null for none", "", "[0, 1]"),
        Column(f"{name}_active", FLOAT, f"share of the time seen spent in episodes of {name}; null if thresholds are relative to an unknown baseline", "", "[0, 1]"),
        Column(f"{name}_episodes", INT32, f"number of episodes of {name}; rows in `events`; null if {name}_active is", "episodes", ">= 0"),
        Column(f"{name}_episode_s", FLOAT, f"mean duration of an episode of {name}; null without episodes", "s", ">= 0"),
    )  # fmt: skip


TRACKS = (
    *_OF_TRACK,
    Column("start_us", INT64, "presentation time of its first face", "µs"),
    Column("end_us", INT64, "presentation time of its last face", "µs"),
    Column("frames", INT32, "number of faces of the track; its rows in `faces`", "frames", ">= 1"),
    Column("seen_s", FLOAT, "time seen: the time that its samples represent, without gaps; all shares are shares of it", "s", ">= 0"),
    Column("faces_per_s", FLOAT, "samples per second over the time seen; null for a single sample", "1/s", ">= 0"),
    Column("coverage", FLOAT, "share of the sampled frames between its start and end that contain its face", "", "[0, 1]"),
    Column("face_px_median", FLOAT, "median of face_px", "px", ">= 1"),
    Column("sharpness_median", FLOAT, "median of sharpness", "grey levels²", ">= 0"),
    Column("in_frame_median", FLOAT, "median of in_frame", "", "[0, 1]"),
    *(column for name in AU_NAMES_20 for column in _of_action_unit(name)),
    *(column for name in DESCRIBED if name not in AU_NAMES_20 for column in _described(name)),
    Column("gaze_on_camera", FLOAT, "share of the time seen with gaze_angle below derive.gaze_away.on_at", "", "[0, 1]"),
    Column("blinks", INT32, "number of blinks; null if the sampling rate is too low for blinks", "blinks", ">= 0"),
    Column("blinks_per_min", FLOAT, "blinks per minute of the time seen; null if the sampling rate is too low for blinks", "1/min", ">= 0"),
    *(Column(f"asymmetry_{name}", FLOAT, f"mean of {name}Left minus {name}Right; left is the subject's", "", "[-1, 1]") for name in ASYMMETRIES),
    Column("asymmetry_mesh_mouth", FLOAT, "how much higher the left corner of the mouth is than the right one; left is the subject's", "distances of the outer eye corners"),
    Column("asymmetry_mesh_brows", FLOAT, "how much higher the left brow is than the right one; left is the subject's", "distances of the outer eye corners"),
)  # fmt: skip

EVENTS = (
    *_OF_TRACK,
    Column("event_id", INT32, "number of the event within the track, from 0, ordered by start, then kind", "", ">= 0"),
    Column("kind", STRING, "an action unit, blink, smile, emotion_<name>, gaze_away, nod, shake, or a name of derive.events"),
    Column("side", STRING, "side of the subject's face, for blinks", "", "left | right | both"),
    Column("variant", STRING, "for smiles: whether AU06 was active for at least half of the time; null if AU06_active is", "", "with_AU06 | without_AU06"),
    Column("start_us", INT64, "presentation time of its first sample", "µs"),
    Column("peak_us", INT64, "presentation time of its strongest sample, the first if several are equal", "µs"),
    Column("end_us", INT64, "presentation time of its last sample", "µs"),
    Column("peak", FLOAT, "value of the signal at its peak, in the unit of its column"),
    Column("mean", FLOAT, "mean of the signal over the event"),
    Column("frames", INT32, "number of samples in the event", "frames", ">= 1"),
    Column("open_start", BOOL, "whether the track's start, a cut or a gap hides how it began"),
    Column("open_end", BOOL, "whether the track's end, a cut or a gap hides how it ended"),
)  # fmt: skip

EMBEDDINGS = (
    *KEY, _FACE, _RUN, _TRACK,
    Column("embedder", STRING, "network that computed it"),
    Column("quality", FLOAT, "quality of the face image: size, sharpness, how frontal it is and how much of it is inside the frame", "", "[0, 1]"),
    Column("embedding", FLOATS, "unit vector; embeddings of one person have a large cosine. Biometric data"),
)  # fmt: skip

PERSONS = (
    _DATASET, _RELEASE,
    Column("clustering", STRING, "settings that derived the row from embeddings; a partition"),
    _VIDEO,
    Column("track_id", INT32, "as in `faces`", "", ">= 0"),
    Column("person_id", STRING, "id of the person, the same in all videos of the release; stable when videos are added"),
    Column("similarity", FLOAT, "cosine between the track's mean embedding and its person's", "", "[-1, 1]"),
    Column("margin", FLOAT, "similarity minus the cosine with the nearest other person; null if there is no other person", "", "[-2, 2]"),
    Column("previous", STRING, "the track's former person_id if `featray persons` changed it, else null. If no track has that id as `person_id` any more, the person was merged; otherwise tracks left it"),
    Column("name", STRING, "name of the person if `featray persons --gallery` recognised one, else null"),
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
"""Tables that identify people, written only if `identify:` is enabled. They are in no view, export or report, and not in
`TABLES`, so they are left out unless requested by name."""

PERSON_TABLES: Final[dict[str, tuple[Column, ...]]] = {"persons": PERSONS}
"""Written only by `featray persons`, in a commit of its own. It has a view, but is not in `TABLES` for the same reason."""

ALL_TABLES: Final[dict[str, tuple[Column, ...]]] = {**TABLES, **PRIVATE_TABLES, **PERSON_TABLES}
"""All tables that commits may name and that are verified, erased and compacted."""

TABLE_MEANINGS: Final[dict[str, str]] = {
    "faces": "one row per face and sampled frame: box, action units, emotions, valence and arousal, gaze, head pose, quality",
    "blendshapes": "one row per face: the 52 MediaPipe blendshapes",
    "mesh": "one row per face: the 478-vertex mesh in frame pixels",
    "frames": "one row per sampled frame, with or without a face",
    "videos": "one row per video: properties of the file and outcome of its processing",
    "errors": "one row per error",
    "runs": "one row per run: configuration, weights, versions, machine, counts",
    "erasures": "one row per erasure: which video or track, how many rows; nothing that identifies the person",
    "tracks": "one row per track: time, quality, statistics of every signal, episodes, blinks, asymmetry; derived from `faces`",
    "events": "one row per event: episodes of action units, smiles, emotions, blinks, gaze away, nods, shakes; derived from `faces`",
    "embeddings": "one row per embedded face (identify.enabled): biometric data; in no view, export or report",
    "persons": "one row per track with embeddings: its person, and how certain that is; written by `featray persons`",
}

PERSON_KEY: Final = ("dataset", "release", "video_id", "track_id")
"""What joins `persons` to rows of a track."""

FACE_TABLES: Final = ("faces", "blendshapes", "mesh")
PER_VIDEO_TABLES: Final = (*FACE_TABLES, "frames", "videos", "errors")
DERIVED_TABLES: Final = ("tracks", "events")
"""Tables derived from published rows by `derive:`; stored as further files of the commit that holds those rows."""

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
"""Order of rows within a file. `frame_index` never disagrees with `pts_us` and breaks ties: some streams have frames with
equal times, and a jittering clock adds more."""

ROWS_A_GROUP: Final[dict[str, int]] = {
    table: 8_192 if table in ("mesh", "embeddings") else 122_880 for table in ALL_TABLES
}
"""Rows per row group; a mesh row takes about 6 KB, so its groups are smaller."""


def arrow_schema(table: str, path_fields: tuple[str, ...] = ()) -> pa.Schema:
    """Return the Arrow schema of a table, with column comments; path fields follow as nullable strings."""
    columns = columns_of(table)
    extra = (
        ()
        if table in ("runs", "erasures", "persons")
        else tuple(Column(n, STRING, f"part of the path: {n}; a partition") for n in path_fields)
    )
    return pa.schema([_field(column) for column in (*columns, *extra)])


def columns_of(table: str) -> tuple[Column, ...]:
    """Return the columns of any table."""
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
"""Columns of a face before inference; `chip` is the index of its chip within the chunk. Faces of repeated frames share a
chip."""

LANDED_SCHEMA = _landed(iter((*FACES, *BLENDSHAPES, *MESH)))
"""A face with all outputs of the network, before it is split into the tables."""

EMBEDDED_SCHEMA = pa.schema([("embedding", FLOATS), ("embedding_quality", FLOAT)])
"""Columns that landed faces have in addition to LANDED_SCHEMA if embeddings are enabled; null for faces without one."""

FRAMES_SCHEMA = pa.schema([*_landed(iter(FRAMES)), pa.field("thumbnail", pa.binary()), pa.field("digest", pa.binary())])
"""A frame. Only a unit's first and last frame have a `thumbnail` (shots.py) and a `digest` (repeats.py). `shot_cut` and
`repeats` of the first frame are null: cuts and repeated pictures between two units are found when both have landed."""
