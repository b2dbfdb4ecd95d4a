-- How do groups of participants differ?
--
-- For a manifest with the columns `participant` and `condition`, which the view `summary` has too; insert your own.
-- One row per condition:
--   participants, videos
--   smiling, smiling_sd     share of the time with AU12 active: mean and standard deviation over participants
--   blinks_per_min          over those whose sampling rate is high enough for blinks
--   on_camera               share of the time with the gaze on the camera
--
-- First one row per participant, then the groups: videos of one person are not independent. Videos whose main face is
-- seen for less than 80 % of its span are left out. For a test, export the inner rows: `featray export OUT --summary csv`.
-- Needs `tracks`. Runs on DuckDB.
WITH people AS (
    SELECT dataset, release, condition, participant, count(*) AS videos,
        avg(AU12_active) AS smiling, avg(blinks_per_min) AS blinks_per_min, avg(gaze_on_camera) AS on_camera
    FROM summary
    WHERE coverage >= 0.8
    GROUP BY ALL
)
SELECT dataset, release, condition, count(*) AS participants, CAST(sum(videos) AS BIGINT) AS videos,
    avg(smiling) AS smiling, stddev_samp(smiling) AS smiling_sd, avg(blinks_per_min) AS blinks_per_min,
    avg(on_camera) AS on_camera
FROM people
GROUP BY dataset, release, condition
ORDER BY dataset, release, condition
