-- Do action units and blendshapes, two heads of one network, agree?
--
-- One row per action unit with a counterpart among the blendshapes (two sides averaged):
--   blendshape    the counterpart
--   faces         faces with both
--   mean_au, mean_blendshape
--   correlation   Pearson's, over faces; null if one of the two never changes
--
-- The scales differ, a probability and a muscle's movement: the correlation counts, not the means. If agreement is low
-- on the faces of good_faces.sql, check the videos before you trust either.
-- Needs `blendshapes` among output.tables. Runs on DuckDB and Spark SQL.
WITH counterparts AS (
    SELECT * FROM (
        VALUES ('AU01', 'browInnerUp'), ('AU02', 'browOuterUp'), ('AU04', 'browDown'), ('AU05', 'eyeWide'),
            ('AU06', 'cheekSquint'), ('AU07', 'eyeSquint'), ('AU09', 'noseSneer'), ('AU10', 'mouthUpperUp'),
            ('AU12', 'mouthSmile'), ('AU14', 'mouthDimple'), ('AU15', 'mouthFrown'), ('AU17', 'mouthShrugLower'),
            ('AU20', 'mouthStretch'), ('AU24', 'mouthPress'), ('AU26', 'jawOpen'), ('AU28', 'mouthRoll'),
            ('AU43', 'eyeBlink')
    ) AS named (au, blendshape)
), pairs AS (
    SELECT faces.dataset, faces.release, au, blendshape,
        CASE au
            WHEN 'AU01' THEN AU01 WHEN 'AU02' THEN AU02 WHEN 'AU04' THEN AU04 WHEN 'AU05' THEN AU05
            WHEN 'AU06' THEN AU06 WHEN 'AU07' THEN AU07 WHEN 'AU09' THEN AU09 WHEN 'AU10' THEN AU10
            WHEN 'AU12' THEN AU12 WHEN 'AU14' THEN AU14 WHEN 'AU15' THEN AU15 WHEN 'AU17' THEN AU17
            WHEN 'AU20' THEN AU20 WHEN 'AU24' THEN AU24 WHEN 'AU26' THEN AU26 WHEN 'AU28' THEN AU28
            WHEN 'AU43' THEN AU43
        END AS a,
        CASE au
            WHEN 'AU01' THEN browInnerUp
            WHEN 'AU02' THEN (browOuterUpLeft + browOuterUpRight) / 2
            WHEN 'AU04' THEN (browDownLeft + browDownRight) / 2
            WHEN 'AU05' THEN (eyeWideLeft + eyeWideRight) / 2
            WHEN 'AU06' THEN (cheekSquintLeft + cheekSquintRight) / 2
            WHEN 'AU07' THEN (eyeSquintLeft + eyeSquintRight) / 2
            WHEN 'AU09' THEN (noseSneerLeft + noseSneerRight) / 2
            WHEN 'AU10' THEN (mouthUpperUpLeft + mouthUpperUpRight) / 2
            WHEN 'AU12' THEN (mouthSmileLeft + mouthSmileRight) / 2
            WHEN 'AU14' THEN (mouthDimpleLeft + mouthDimpleRight) / 2
            WHEN 'AU15' THEN (mouthFrownLeft + mouthFrownRight) / 2
            WHEN 'AU17' THEN mouthShrugLower
            WHEN 'AU20' THEN (mouthStretchLeft + mouthStretchRight) / 2
            WHEN 'AU24' THEN (mouthPressLeft + mouthPressRight) / 2
            WHEN 'AU26' THEN jawOpen
            WHEN 'AU28' THEN (mouthRollLower + mouthRollUpper) / 2
            WHEN 'AU43' THEN (eyeBlinkLeft + eyeBlinkRight) / 2
        END AS b
    FROM faces
    JOIN blendshapes USING (dataset, release, video_id, frame_index, face_index)
    CROSS JOIN counterparts
)
SELECT dataset, release, au, blendshape,
    count(*) AS faces,
    avg(a) AS mean_au,
    avg(b) AS mean_blendshape,
    CASE WHEN min(a) < max(a) AND min(b) < max(b) THEN corr(a, b) END AS correlation
FROM pairs
GROUP BY dataset, release, au, blendshape
ORDER BY dataset, release, au
