-- Which emotions does each video show?
--
-- One row per video and emotion:
--   seen_s     seconds that faces were seen, over all tracks
--   share      mean of the emotion's column over that time; the seven shares of a video sum to 1
--
-- Two people count twice. Blurred and tiny faces count too; good_faces.sql has a filter. `events` has the times at which
-- an emotion outweighs all others (kind emotion_happy and so on).
-- Needs `tracks`. Runs on DuckDB and Spark SQL.
WITH long AS (
    SELECT dataset, release, video_id, seen_s, emotion, value
    FROM (
        SELECT dataset, release, video_id, seen_s, emotion_neutral_mean, emotion_happy_mean, emotion_sad_mean,
            emotion_surprise_mean, emotion_fear_mean, emotion_disgust_mean, emotion_anger_mean
        FROM tracks
    ) UNPIVOT (
        value FOR emotion IN (emotion_neutral_mean, emotion_happy_mean, emotion_sad_mean, emotion_surprise_mean,
                              emotion_fear_mean, emotion_disgust_mean, emotion_anger_mean)
    )
)
SELECT dataset, release, video_id, replace(replace(emotion, 'emotion_', ''), '_mean', '') AS emotion,
    sum(CAST(seen_s AS DOUBLE)) AS seen_s,
    sum(CAST(seen_s AS DOUBLE) * value) / sum(CAST(seen_s AS DOUBLE)) AS share
FROM long
GROUP BY dataset, release, video_id, emotion
ORDER BY dataset, release, video_id, share DESC, emotion
