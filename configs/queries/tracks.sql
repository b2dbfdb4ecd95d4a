-- Who is on screen, from when to when, and how well is each face seen?
--
-- One row per track, a face followed over time, the longest of a video first:
--   start_us, end_us     its first and last sampled frame
--   faces                its rows in `faces`
--   present              faces / sampled frames between its start and end; below 1: lost in between
--   face_px, sharpness, in_frame   medians of the quality columns, over time
--   AU12, valence, arousal    means over time
--
-- A track is not an identity: the same person after a second out of sight is a new track.
-- Needs `tracks`. Runs on DuckDB and Spark SQL.
SELECT dataset, release, video_id, track_id, start_us, end_us, frames AS faces, coverage AS present,
    face_px_median AS face_px, sharpness_median AS sharpness, in_frame_median AS in_frame,
    AU12_mean AS AU12, valence_mean AS valence, arousal_mean AS arousal
FROM tracks
ORDER BY dataset, release, video_id, seen_s DESC, track_id
