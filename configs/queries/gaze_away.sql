-- When does someone look away from the camera, and for how long?
--
-- Away is a gaze more than `away_rad` off the camera's axis; an episode is a run of such frames of one
-- track that lasts at least `least_us`. A glance back of up to `bridge_us` does not end it. One row an episode:
--   start_us, end_us   first and last sampled frame that is away
--   seconds            between the two; a lower bound, since frames between samples are not seen
--   faces              sampled frames that are away
--   mean_angle         rad
--
-- The axis is the camera's, not a person's: whoever faces someone beside the camera looks away all the time.
-- Runs on DuckDB and Spark SQL.
WITH settings AS (  -- e0 makes a double, so that engines agree at the threshold
    SELECT 0.35e0 AS away_rad, 500000 AS least_us, 200000 AS bridge_us
), away AS (
    SELECT dataset, release, video_id, track_id, frame_index, pts_us, gaze_angle,
        lag(pts_us) OVER (PARTITION BY dataset, release, video_id, track_id ORDER BY frame_index) AS away_before_us,
        seen_before_us
    FROM (
        SELECT *,
            lag(pts_us) OVER (PARTITION BY dataset, release, video_id, track_id ORDER BY frame_index) AS seen_before_us
        FROM faces
    ) AS seen CROSS JOIN settings
    WHERE gaze_angle > away_rad
), numbered AS (
    -- the next episode starts unless the frame before was away too, or is near enough
    SELECT *,
        sum(CASE WHEN away_before_us = seen_before_us OR pts_us - away_before_us <= bridge_us THEN 0 ELSE 1 END)
            OVER (PARTITION BY dataset, release, video_id, track_id ORDER BY frame_index) AS episode
    FROM away CROSS JOIN settings
)
SELECT dataset, release, video_id, track_id,
    min(pts_us) AS start_us,
    max(pts_us) AS end_us,
    (max(pts_us) - min(pts_us)) / 1e6 AS seconds,
    count(*) AS faces,
    avg(gaze_angle) AS mean_angle
FROM numbered
GROUP BY dataset, release, video_id, track_id, episode, least_us
HAVING max(pts_us) - min(pts_us) >= least_us
ORDER BY dataset, release, video_id, track_id, start_us
