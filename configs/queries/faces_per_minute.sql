-- How many faces are there, minute by minute?
--
-- One row a video and minute of presentation time that has a sampled frame:
--   minute         0 is the first
--   frames         sampled frames
--   with_face      those with a face
--   damaged        those without one whose picture came out damaged
--   faces          faces in all of them
--   mean_faces     faces a sampled frame, without the damaged ones; null if there are no others
--   most_faces     in one frame
--
-- Counts go with the sampling: compare mean_faces between videos, not faces.
-- Runs on DuckDB and Spark SQL.
SELECT dataset, release, video_id,
    CAST(floor(pts_us / 60e6) AS BIGINT) AS minute,
    count(*) AS frames,
    count_if(faces > 0) AS with_face,
    count_if(status = 'decode_error') AS damaged,
    CAST(sum(faces) AS BIGINT) AS faces,
    avg(CASE WHEN status <> 'decode_error' THEN faces END) AS mean_faces,
    max(faces) AS most_faces
FROM frames
GROUP BY dataset, release, video_id, CAST(floor(pts_us / 60e6) AS BIGINT)
ORDER BY dataset, release, video_id, minute
