-- How many faces are there, minute by minute?
--
-- One row per video and minute of presentation time with a sampled frame:
--   minute         0 is the first
--   frames         sampled frames
--   with_face      frames with a face
--   damaged        damaged frames without a face
--   faces          faces in all frames
--   mean_faces     faces per sampled frame, without damaged frames; null if there are no others
--   most_faces     maximum in one frame
--
-- Counts depend on the sampling: compare mean_faces between videos, not faces.
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
