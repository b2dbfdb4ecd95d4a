-- Which emotions does each video show, and how often?
--
-- One row a video and emotion:
--   faces      rows of `faces`, whatever their emotion
--   strongest  those of which this emotion is the strongest of the seven
--   share      strongest / faces; the seven shares of a video sum to 1
--   mean       mean of the emotion's own column over all faces
--
-- A face counts once a sampled frame, so two people count twice. Equal values go to the first in
-- the order below. Blurred and tiny faces count too; good_faces.sql has a filter.
-- Runs on DuckDB and Spark SQL.
WITH top AS (
    SELECT *,
        greatest(emotion_neutral, emotion_happy, emotion_sad, emotion_surprise, emotion_fear, emotion_disgust,
                 emotion_anger) AS most
    FROM faces
), named AS (
    SELECT *,
        CASE most
            WHEN emotion_neutral THEN 'emotion_neutral'
            WHEN emotion_happy THEN 'emotion_happy'
            WHEN emotion_sad THEN 'emotion_sad'
            WHEN emotion_surprise THEN 'emotion_surprise'
            WHEN emotion_fear THEN 'emotion_fear'
            WHEN emotion_disgust THEN 'emotion_disgust'
            ELSE 'emotion_anger'
        END AS winner
    FROM top
), long AS (
    SELECT dataset, release, video_id, winner, emotion, value
    FROM (
        SELECT dataset, release, video_id, winner, emotion_neutral, emotion_happy, emotion_sad, emotion_surprise,
            emotion_fear, emotion_disgust, emotion_anger
        FROM named
    ) UNPIVOT (
        value FOR emotion IN (emotion_neutral, emotion_happy, emotion_sad, emotion_surprise, emotion_fear,
                              emotion_disgust, emotion_anger)
    )
)
SELECT dataset, release, video_id, substring(emotion, 9) AS emotion,
    count(*) AS faces,
    count_if(winner = emotion) AS strongest,
    count_if(winner = emotion) / count(*) AS share,
    avg(value) AS mean
FROM long
GROUP BY dataset, release, video_id, emotion
ORDER BY dataset, release, video_id, share DESC, emotion
