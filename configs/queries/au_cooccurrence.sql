-- Which action units appear together?
--
-- One row per pair of the 20 action units (au_a < au_b) that shares at least one face, over all faces of a release:
--   faces     rows of `faces`
--   n_a, n_b  faces with the unit at or above `active_at`
--   n_both    faces with both
--   jaccard   n_both / faces with either; 1 if they always occur together
--   lift      n_both relative to the value expected if the two were independent; above 1: together more often
--
-- Frames follow each other closely, so neighbouring rows are not independent: no p-values from these counts.
-- Uses one row for each active unit of a face; on large tables filter `faces` first.
-- Runs on DuckDB and Spark SQL.
WITH settings AS (  -- e0 makes a double, so that engines agree at the threshold
    SELECT 0.5e0 AS active_at
), long AS (
    SELECT dataset, release, video_id, frame_index, face_index, au, value
    FROM (
        SELECT dataset, release, video_id, frame_index, face_index, AU01, AU02, AU04, AU05, AU06, AU07, AU09, AU10,
            AU11, AU12, AU14, AU15, AU17, AU20, AU23, AU24, AU25, AU26, AU28, AU43
        FROM faces
    ) UNPIVOT (
        value FOR au IN (AU01, AU02, AU04, AU05, AU06, AU07, AU09, AU10, AU11, AU12, AU14, AU15, AU17, AU20, AU23,
                         AU24, AU25, AU26, AU28, AU43)
    )
), active AS (
    SELECT dataset, release, video_id, frame_index, face_index, au
    FROM long CROSS JOIN settings
    WHERE value >= active_at
), singles AS (
    SELECT dataset, release, au, count(*) AS n FROM active GROUP BY dataset, release, au
), pairs AS (
    SELECT dataset, release, one.au AS au_a, other.au AS au_b, count(*) AS n_both
    FROM active AS one JOIN active AS other USING (dataset, release, video_id, frame_index, face_index)
    WHERE one.au < other.au
    GROUP BY dataset, release, one.au, other.au
), totals AS (
    SELECT dataset, release, count(*) AS faces FROM faces GROUP BY dataset, release
)
SELECT dataset, release, au_a, au_b, faces, a.n AS n_a, b.n AS n_b, n_both,
    n_both / (a.n + b.n - n_both) AS jaccard,
    n_both / a.n / b.n * faces AS lift
FROM pairs
JOIN totals USING (dataset, release)
JOIN singles AS a USING (dataset, release)
JOIN singles AS b USING (dataset, release)
WHERE a.au = au_a AND b.au = au_b
ORDER BY dataset, release, lift DESC, au_a, au_b
