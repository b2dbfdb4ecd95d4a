-- How often does each face blink, and for how much of the time does it look at the camera?
--
-- One row per track that was seen for `least_s` seconds or more:
--   seen_s            seconds that it was seen
--   faces_per_s       samples per second in that time
--   blinks, per_min   null, not 0, if the sampling rate is too low for blinks (below 15 faces per second by default)
--   left_only, right_only   blinks seen in only one eye: winks, or a turned head that hides the other eye
--   on_camera         share of the time with the gaze within `derive.gaze_away.on_at` of the camera's axis
--
-- Rates of short tracks are mostly chance. Needs `tracks` and `events`. Runs on DuckDB and Spark SQL.
WITH settings AS (
    SELECT 10 AS least_s
), sides AS (
    SELECT dataset, release, video_id, track_id, count_if(side = 'left') AS left_only,
        count_if(side = 'right') AS right_only
    FROM events
    WHERE kind = 'blink'
    GROUP BY dataset, release, video_id, track_id
)
SELECT dataset, release, video_id, track_id, seen_s, faces_per_s, blinks, blinks_per_min AS per_min,
    CASE WHEN blinks IS NOT NULL THEN coalesce(left_only, 0) END AS left_only,
    CASE WHEN blinks IS NOT NULL THEN coalesce(right_only, 0) END AS right_only,
    gaze_on_camera AS on_camera
FROM tracks
LEFT JOIN sides USING (dataset, release, video_id, track_id)
CROSS JOIN settings
WHERE seen_s >= least_s
ORDER BY dataset, release, video_id, track_id
