-- Which faces are seen well enough to trust their numbers?
--
-- One row per face that passes every threshold below: its keys, its place (uri, member, pts_us), the quality
-- columns used, and its emotions, valence and arousal. Interpolated boxes do not pass.
--
-- Head pitch is shown but has no threshold: the checkpoint v2.5 does not estimate it (runs.unusable lists the columns
-- that a release's weights do not estimate).
--
-- The thresholds are a starting point, not a standard: sharpness depends on resolution and compression, so check
-- its distribution in your videos first. A filter biases the result: people who turn away or move are dropped.
-- Runs on DuckDB and Spark SQL.
WITH settings AS (  -- e0 makes a double, so that engines agree at the threshold
    SELECT 0.8e0 AS least_score, 48 AS least_px, 30 AS least_sharpness, 0.8e0 AS least_in_frame, 0.7e0 AS most_yaw_rad
)
SELECT dataset, release, video_id, uri, member, frame_index, pts_us, face_index, track_id,
    score, face_px, sharpness, in_frame, pose_yaw, pose_pitch,
    emotion_neutral, emotion_happy, emotion_sad, emotion_surprise, emotion_fear, emotion_disgust, emotion_anger,
    valence, arousal
FROM faces
JOIN (SELECT dataset, release, video_id, uri, member FROM videos) AS named USING (dataset, release, video_id)
CROSS JOIN settings
WHERE score >= least_score
    AND face_px >= least_px
    AND sharpness >= least_sharpness
    AND in_frame >= least_in_frame
    AND abs(pose_yaw) <= most_yaw_rad
    AND NOT interpolated
ORDER BY dataset, release, video_id, pts_us, face_index
