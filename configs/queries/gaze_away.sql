-- When does someone look away from the camera, and for how long?
--
-- Away is defined by `derive.gaze_away` of the config: by default a gaze 0.35 rad or more off the camera's axis for half
-- a second or more. One row per episode:
--   start_us, end_us   first and last sampled frame that is away
--   seconds            between the two; a lower bound, since frames between samples are not seen
--   faces              number of sampled frames
--   mean_angle         rad
--
-- The axis is the camera's, not a person's: anyone who faces a person next to the camera always looks away.
-- Needs `events`. Runs on DuckDB and Spark SQL.
SELECT dataset, release, video_id, track_id, start_us, end_us, (end_us - start_us) / 1e6 AS seconds, frames AS faces,
    mean AS mean_angle
FROM events
WHERE kind = 'gaze_away'
ORDER BY dataset, release, video_id, track_id, start_us
