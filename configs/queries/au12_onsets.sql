-- When does a smile (AU12) start and end, face by face?
--
-- Hysteresis: a smile starts where AU12 reaches `on_at` and lasts until AU12 has fallen to `off_at`;
-- values in between leave it as it is, so that one smile is not cut into ten. One row a smile:
--   start_us, end_us      first and last sampled frame of it, presentation time
--   apex_us, apex         the strongest frame (the first, of equals) and its AU12
--   faces                 sampled frames it lasts
--   cut_at_start, cut_at_end   it was on when the track began, or still on when the track ended
--
-- Change the two thresholds, or AU12, to taste. AU columns are probabilities, not intensities. A track
-- ends when its face is gone for over a second, and a smile with it. Times are as fine as the sampling.
-- Runs on DuckDB and Spark SQL.
WITH settings AS (  -- e0 makes a double, so that engines agree at the threshold
    SELECT 0.6e0 AS on_at, 0.4e0 AS off_at
), signals AS (
    SELECT dataset, release, video_id, track_id, frame_index, pts_us, AU12 AS au,
        CASE WHEN AU12 >= on_at THEN 1 WHEN AU12 <= off_at THEN 0 END AS signal
    FROM faces CROSS JOIN settings
), spans AS (
    -- a span: one signal, and the undecided frames that follow it
    SELECT *, count(signal) OVER (PARTITION BY dataset, release, video_id, track_id ORDER BY frame_index) AS span
    FROM signals
), states AS (
    SELECT *, coalesce(max(signal) OVER (PARTITION BY dataset, release, video_id, track_id, span), 0) AS state
    FROM spans
), edges AS (
    SELECT *,
        lag(state) OVER (PARTITION BY dataset, release, video_id, track_id ORDER BY frame_index) AS before,
        lead(state) OVER (PARTITION BY dataset, release, video_id, track_id ORDER BY frame_index) AS after
    FROM states
), numbered AS (
    SELECT *,
        sum(CASE WHEN state = 1 AND coalesce(before, 0) = 0 THEN 1 ELSE 0 END)
            OVER (PARTITION BY dataset, release, video_id, track_id ORDER BY frame_index) AS smile
    FROM edges
), smiles AS (
    SELECT *, max(au) OVER (PARTITION BY dataset, release, video_id, track_id, smile) AS most
    FROM numbered
    WHERE state = 1
)
SELECT dataset, release, video_id, track_id,
    min(pts_us) AS start_us,
    max(pts_us) AS end_us,
    min(CASE WHEN au = most THEN pts_us END) AS apex_us,
    max(au) AS apex,
    count(*) AS faces,
    bool_or(before IS NULL) AS cut_at_start,
    bool_or(after IS NULL) AS cut_at_end
FROM smiles
GROUP BY dataset, release, video_id, track_id, smile
ORDER BY dataset, release, video_id, track_id, start_us
