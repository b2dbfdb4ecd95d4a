-- When is the face most expressive in each video?
--
-- Each episode of an action unit counts where it is strongest, with its peak, so a face at rest does not count, however
-- it looks. (In `featray report` it does: the strongest expressions there are those with the highest mean
-- probability.) One row per moment, the `moments` strongest of a video, strongest first:
--   place            1 is the strongest
--   start_us         start of the moment: windows of `window_us`, from 0
--   track_id         track of the face; ties go to the earlier window, then to the lower track
--   expressiveness   sum of the peaks of the action units that are at their strongest in the window
--   action_units     number of these episodes
--
-- Eyes closed (AU43) is left out, since blinks are not expressions. Bad crops look expressive: if they appear in the
-- result, join `tracks` and filter by face_px_median and in_frame_median.
-- Needs `events`. Runs on DuckDB and Spark SQL.
WITH settings AS (
    SELECT 3 AS moments, 1000000 AS window_us
), windows AS (
    SELECT dataset, release, video_id, track_id,
        CAST(floor(peak_us / window_us) * window_us AS BIGINT) AS start_us,
        sum(CAST(peak AS DOUBLE)) AS expressiveness,
        count(*) AS action_units
    FROM events CROSS JOIN settings
    WHERE kind LIKE 'AU%' AND kind <> 'AU43'
    GROUP BY dataset, release, video_id, track_id, CAST(floor(peak_us / window_us) * window_us AS BIGINT)
), ranked AS (
    SELECT *,
        row_number() OVER (
            PARTITION BY dataset, release, video_id ORDER BY expressiveness DESC, start_us, track_id
        ) AS place
    FROM windows
)
SELECT dataset, release, video_id, place, start_us, track_id, expressiveness, action_units
FROM ranked CROSS JOIN settings
WHERE place <= moments
ORDER BY dataset, release, video_id, place
