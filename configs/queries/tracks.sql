-- Who is on screen, from when to when, and how well is each seen?
--
-- One row a track, the same face followed over time:
--   start_us, end_us     its first and last sampled frame
--   faces                its rows in `faces`
--   present              faces / sampled frames from its start to its end; below 1: lost in between
--   score, face_px, sharpness, in_frame   medians of the quality columns
--   best_frame           frame_index of its sharpest face (the first, of equals): the one for a thumbnail
--   AU12, valence, arousal    means
--
-- A track is no identity: the same person after a second out of sight is a new track.
-- Medians interpolate. Runs on DuckDB and Spark SQL.
WITH spans AS (
    SELECT *,
        max(sharpness) OVER (PARTITION BY dataset, release, video_id, track_id) AS sharpest
    FROM faces
), tracks AS (
    SELECT dataset, release, video_id, track_id,
        min(frame_index) AS first_frame,
        max(frame_index) AS last_frame,
        count(*) AS faces,
        median(score) AS score,
        median(face_px) AS face_px,
        median(sharpness) AS sharpness,
        median(in_frame) AS in_frame,
        min(CASE WHEN sharpness = sharpest THEN frame_index END) AS best_frame,
        avg(AU12) AS AU12,
        avg(valence) AS valence,
        avg(arousal) AS arousal
    FROM spans
    GROUP BY dataset, release, video_id, track_id
), numbered AS (
    SELECT dataset, release, video_id, frame_index, pts_us,
        row_number() OVER (PARTITION BY dataset, release, video_id ORDER BY frame_index) AS position
    FROM frames
)
SELECT dataset, release, video_id, track_id, since.pts_us AS start_us, until.pts_us AS end_us, tracks.faces,
    tracks.faces / (until.position - since.position + 1) AS present,
    score, face_px, sharpness, in_frame, best_frame, AU12, valence, arousal
FROM tracks
JOIN numbered AS since USING (dataset, release, video_id)
JOIN numbered AS until USING (dataset, release, video_id)
WHERE since.frame_index = first_frame AND until.frame_index = last_frame
ORDER BY dataset, release, video_id, track_id
