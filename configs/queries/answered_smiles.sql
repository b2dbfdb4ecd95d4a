-- Which smiles are answered by somebody else in the picture, and how soon?
--
-- A smile is answered if another track begins one within `within_us` of its start; the first of these is the answer.
-- One row per answered smile:
--   start_us, track_id      the smile and its track
--   answer_us, answer_track_id, variant   the answer, and whether the cheeks are raised in it (AU06)
--   delay_s                 from start to start
--
-- Two tracks may be one person who was lost for a while: check both. Smiles cut off by a gap or the start of a track
-- are left out, since their beginning is unknown. Needs `events`. Runs on DuckDB and Spark SQL.
WITH settings AS (
    SELECT 2000000 AS within_us
), smiles AS (
    SELECT dataset, release, video_id, track_id, event_id, start_us, variant
    FROM events
    WHERE kind = 'smile' AND NOT open_start
), answers AS (
    SELECT one.dataset, one.release, one.video_id, one.track_id, one.start_us, other.start_us AS answer_us,
        other.track_id AS answer_track_id, other.variant,
        row_number() OVER (
            PARTITION BY one.dataset, one.release, one.video_id, one.track_id, one.event_id
            ORDER BY other.start_us, other.track_id
        ) AS place
    FROM smiles AS one
    JOIN smiles AS other
        ON one.dataset = other.dataset AND one.release = other.release AND one.video_id = other.video_id
        AND one.track_id <> other.track_id
    CROSS JOIN settings
    WHERE other.start_us > one.start_us AND other.start_us - one.start_us <= within_us
)
SELECT dataset, release, video_id, track_id, start_us, answer_us, answer_track_id, variant,
    (answer_us - start_us) / 1e6 AS delay_s
FROM answers
WHERE place = 1
ORDER BY dataset, release, video_id, start_us, track_id
