-- Where in each video does most happen in a face?
--
-- A face's expressiveness in a frame is how far its 20 action units are from the mean of its own track
-- (Euclidean distance), so that a person's resting face does not count (in `featray report` it does: there the
-- strongest expressions are those with the highest mean of the probabilities). One row a moment, the `moments` strongest
-- of a video, strongest first:
--   place            1 is the strongest
--   start_us         start of the moment: windows of `window_us`, from 0
--   track_id         whose face; ties go to the earlier window, then to the lower track
--   expressiveness   mean over the window's faces
--   faces            faces in the window
--   valence, arousal means over the window
--
-- Tracks shorter than a window are near their own mean and hardly ever appear. Bad crops look expressive:
-- filter as good_faces.sql does if you find them here.
-- Runs on DuckDB and Spark SQL.
WITH settings AS (
    SELECT 3 AS moments, 1000000 AS window_us
), long AS (
    SELECT dataset, release, video_id, track_id, pts_us, face_index, au, value
    FROM (
        SELECT dataset, release, video_id, track_id, pts_us, face_index, AU01, AU02, AU04, AU05, AU06, AU07, AU09,
            AU10, AU11, AU12, AU14, AU15, AU17, AU20, AU23, AU24, AU25, AU26, AU28, AU43
        FROM faces
    ) UNPIVOT (
        value FOR au IN (AU01, AU02, AU04, AU05, AU06, AU07, AU09, AU10, AU11, AU12, AU14, AU15, AU17, AU20, AU23,
                         AU24, AU25, AU26, AU28, AU43)
    )
), centred AS (
    SELECT *, value - avg(value) OVER (PARTITION BY dataset, release, video_id, track_id, au) AS off FROM long
), each AS (
    SELECT dataset, release, video_id, track_id, pts_us, face_index, sqrt(sum(off * off)) AS distance
    FROM centred
    GROUP BY dataset, release, video_id, track_id, pts_us, face_index
), windows AS (
    SELECT dataset, release, video_id, track_id,
        CAST(floor(pts_us / window_us) * window_us AS BIGINT) AS start_us,
        avg(distance) AS expressiveness,
        count(*) AS faces,
        avg(valence) AS valence,
        avg(arousal) AS arousal
    FROM each
    JOIN (SELECT dataset, release, video_id, pts_us, face_index, valence, arousal FROM faces) AS felt
        USING (dataset, release, video_id, pts_us, face_index)
    CROSS JOIN settings
    GROUP BY dataset, release, video_id, track_id, CAST(floor(pts_us / window_us) * window_us AS BIGINT)
), ranked AS (
    SELECT *,
        row_number() OVER (
            PARTITION BY dataset, release, video_id ORDER BY expressiveness DESC, start_us, track_id
        ) AS place
    FROM windows
)
SELECT dataset, release, video_id, place, start_us, track_id, expressiveness, faces, valence, arousal
FROM ranked CROSS JOIN settings
WHERE place <= moments
ORDER BY dataset, release, video_id, place
