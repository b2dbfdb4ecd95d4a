"""Evaluate. The SQL that joins labels to videos, frames and faces; `join.py` runs it and reads the result.

It uses the views of a scope, `label_rows` (row, name, moment, picture, p0 ... p3) and `label_videos`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Fate(StrEnum):
    """The fate of a label: matched, or the reason why not."""

    FOUND = "found"
    NO_FACE = "no_face"
    NO_FACE_THERE = "no_face_there"
    NO_VIDEO = "no_video"
    SEVERAL_VIDEOS = "several_videos"
    VIDEO_FAILED = "video_failed"
    NOT_SAMPLED = "not_sampled"
    SEVERAL_PICTURES = "several_pictures"
    NEARER_LABEL = "nearer_label"
    DECODE_ERROR = "decode_error"


FATES: Final[dict[Fate, str]] = {
    Fate.FOUND: "matched to a face",
    Fate.NO_FACE: "in frames in which no face was found",
    Fate.NO_FACE_THERE: "in frames with a face, but not where the label is",
    Fate.NO_VIDEO: "of videos that this release does not have",
    Fate.SEVERAL_VIDEOS: "whose name fits several videos; give more of the path, or the video_id",
    Fate.VIDEO_FAILED: "of videos without any decodable frame",
    Fate.NOT_SAMPLED: "of frames that were not sampled or do not exist; --tolerance SECONDS takes the nearest sampled",
    Fate.SEVERAL_PICTURES: "whose name fits several pictures; give more of the path",
    Fate.NEARER_LABEL: "at times whose frame is nearer to another label",
    Fate.DECODE_ERROR: "in damaged frames without a face",
}
"""The meaning of each fate, as a phrase that follows "labels"."""

MISSED: Final = (Fate.NO_FACE, Fate.NO_FACE_THERE)
"""Fates of labelled faces that were not found: one count leaves them out, the other counts them as wrong."""

# A name is an id or a whole URI, else the last parts of one, else those without a suffix. The first match is used.
RESOLVE_VIDEOS: Final = (
    """CREATE OR REPLACE TEMP TABLE places AS SELECT *, regexp_extract(place, '[^/#]+$') AS last,
      regexp_replace(place, '\\.[^./#]*$', '') AS bare FROM (
        SELECT video_id, uri, status, rtrim(coalesce(uri || '#' || member, uri), '/') AS place FROM in_videos)""",
    """CREATE OR REPLACE TEMP TABLE fitting AS
      WITH n AS (SELECT *, regexp_extract(clean, '[^/#]+$') AS last FROM label_videos)
      SELECT name, video_id, status, 1 AS tier FROM n JOIN places ON video_id = name
      UNION ALL SELECT name, video_id, status, 1 FROM n JOIN places ON place = clean
      UNION ALL SELECT name, video_id, status, 1 FROM n JOIN places ON uri = name
      UNION ALL SELECT name, video_id, status, 2 FROM n JOIN places USING (last)
        WHERE ends_with(place, '/' || clean) OR ends_with(place, '#' || clean)
      UNION ALL SELECT name, video_id, status, 3 FROM n JOIN places ON regexp_extract(bare, '[^/#]+$') = n.last
        WHERE ends_with(bare, '/' || clean) OR ends_with(bare, '#' || clean)""",
    """CREATE OR REPLACE TEMP TABLE known AS SELECT name, any_value(video_id) AS video_id, any_value(status) AS status,
      count(DISTINCT video_id) AS videos
      FROM (SELECT * FROM fitting QUALIFY tier = min(tier) OVER (PARTITION BY name)) GROUP BY name""",
    """CREATE OR REPLACE TEMP TABLE placed AS SELECT l.*, k.video_id, k.status AS video_status, k.videos
      FROM label_rows l LEFT JOIN known k USING (name)""",
)

_FRAME: Final = "f.frame_index, f.status AS frame_status, f.faces"
BY_FRAME: Final = f"""CREATE OR REPLACE TEMP TABLE timed AS SELECT p.*, {_FRAME}, 1 AS frames, true AS nearest
  FROM placed p LEFT JOIN in_frames f ON p.videos = 1 AND f.video_id = p.video_id AND f.frame_index = p.moment"""

# The nearest frame on either side; if several labels have the same frame, only those of the nearest time keep it.
BY_TIME: Final = """CREATE OR REPLACE TEMP TABLE timed AS
  WITH step AS (SELECT video_id,
      coalesce((max(pts_us) - min(pts_us)) / nullif(max(frame_index) - min(frame_index), 0) / 2, 20000) AS half_us
    FROM in_frames GROUP BY video_id),
  wanted AS (SELECT * FROM placed WHERE videos = 1),
  f AS (SELECT video_id, pts_us, frame_index, status AS frame_status, faces FROM in_frames),
  both_sides AS (
    SELECT w.row, f.*, w.moment - f.pts_us AS off
      FROM wanted w ASOF JOIN f ON w.video_id = f.video_id AND w.moment >= f.pts_us
    UNION ALL
    SELECT w.row, f.*, f.pts_us - w.moment AS off
      FROM wanted w ASOF JOIN f ON w.video_id = f.video_id AND w.moment < f.pts_us),
  near AS (SELECT b.* FROM both_sides b JOIN step USING (video_id) WHERE off <= {tolerance}
    QUALIFY row_number() OVER (PARTITION BY row ORDER BY off, pts_us) = 1),
  won AS (SELECT n.*, w.moment = first_value(w.moment) OVER (
      PARTITION BY n.video_id, n.frame_index ORDER BY off, w.moment) AS nearest
    FROM near n JOIN wanted w USING (row))
  SELECT p.*, won.frame_index, won.frame_status, won.faces, 1 AS frames, coalesce(won.nearest, true) AS nearest
  FROM placed p LEFT JOIN won USING (row)"""

# A picture's name matches if it is the end of `place of the sequence / source_name`, or if it ends in a whole
# source_name. A video name that no video has is taken as the folder of its pictures, since all may be in one sequence.
BY_PICTURE: Final = f"""CREATE OR REPLACE TEMP TABLE timed AS
  WITH named AS (SELECT f.video_id, v.status AS video_status, {_FRAME}, f.source_name,
      v.place || '/' || f.source_name AS whole, regexp_extract(f.source_name, '[^/]+$') AS last
      FROM in_frames f JOIN places v USING (video_id) WHERE f.source_name IS NOT NULL),
  wanted AS (SELECT *, CASE WHEN videos IS NULL THEN concat_ws('/', name, picture) ELSE picture END AS said,
      replace(said, '\\', '/') AS slashed, regexp_extract(slashed, '[^/]+$') AS last
      FROM placed WHERE videos IS NULL OR videos = 1),
  found AS (SELECT p.row, n.* FROM wanted p
      JOIN named n ON n.last = p.last AND (p.video_id IS NULL OR p.video_id = n.video_id)
      AND (ends_with('/' || whole, '/' || slashed)
        OR (p.videos = 1 AND ends_with('/' || slashed, '/' || n.source_name))))
  SELECT p.* EXCLUDE (video_id, video_status, videos), coalesce(p.video_id, o.video_id) AS video_id,
    coalesce(p.video_status, o.video_status) AS video_status,
    CASE WHEN p.name IS NULL OR (p.videos IS NULL AND o.frames > 0) THEN 1 ELSE p.videos END AS videos,
    o.frame_index, o.frame_status, o.faces, coalesce(o.frames, 0) AS frames, true AS nearest
  FROM placed p LEFT JOIN (SELECT row, any_value(video_id) AS video_id, any_value(video_status) AS video_status,
    any_value(frame_index) AS frame_index, any_value(frame_status) AS frame_status, any_value(faces) AS faces,
    count(*) AS frames FROM found GROUP BY row) o USING (row)"""

_BEST: Final = "SELECT row, video_id, frame_index, 0 AS face_index FROM timed WHERE faces > 0"
# Each label takes the face that fits it best; if several labels take the same face, the best fit keeps it.
_PLACED: Final = """SELECT row, video_id, frame_index, face_index FROM (
    SELECT * FROM (SELECT t.row, t.video_id, t.frame_index, f.face_index, {fit} AS fit
      FROM timed t JOIN in_faces f USING (video_id, frame_index) WHERE t.p0 IS NOT NULL)
    WHERE fit > {{iou}} QUALIFY row_number() OVER (PARTITION BY row ORDER BY fit DESC, face_index) = 1)
  QUALIFY row_number() OVER (PARTITION BY video_id, frame_index, face_index ORDER BY fit DESC, row) = 1
  UNION ALL """
_OVERLAP: Final = (
    "(greatest(0, least(box_x2, p2) - greatest(box_x1, p0)) * greatest(0, least(box_y2, p3) - greatest(box_y1, p1)))"
)
_IOU: Final = f"{_OVERLAP} / ((box_x2 - box_x1) * (box_y2 - box_y1) + (p2 - p0) * (p3 - p1) - {_OVERLAP})"
# The smallest box that contains the point: the larger its inverse area, the better it fits.
_HOLDS: Final = """CASE WHEN p0 BETWEEN box_x1 AND box_x2 AND p1 BETWEEN box_y1 AND box_y2
    THEN 1 / ((box_x2 - box_x1) * (box_y2 - box_y1)) ELSE 0 END"""
CHOSEN: Final = {
    "none": _BEST,
    "box": _PLACED.format(fit=_IOU) + _BEST + " AND p0 IS NULL",
    "point": _PLACED.format(fit=_HOLDS).format(iou="0") + _BEST + " AND p0 IS NULL",
}

FATE_OF: Final = f"""CASE
  WHEN picture IS NOT NULL AND name IS NULL AND frames = 0 THEN '{Fate.NOT_SAMPLED}'
  WHEN videos IS NULL THEN '{Fate.NO_VIDEO}' WHEN videos > 1 THEN '{Fate.SEVERAL_VIDEOS}'
  WHEN frames > 1 THEN '{Fate.SEVERAL_PICTURES}'
  WHEN t.frame_index IS NULL AND video_status = 'failed' THEN '{Fate.VIDEO_FAILED}'
  WHEN t.frame_index IS NULL THEN '{Fate.NOT_SAMPLED}'
  WHEN NOT nearest THEN '{Fate.NEARER_LABEL}'
  WHEN c.face_index IS NOT NULL THEN '{Fate.FOUND}'
  WHEN frame_status = 'decode_error' THEN '{Fate.DECODE_ERROR}'
  WHEN t.faces > 0 THEN '{Fate.NO_FACE_THERE}' ELSE '{Fate.NO_FACE}' END"""
