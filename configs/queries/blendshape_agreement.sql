-- Do action units and blendshapes, two heads of one network, tell the same story?
--
-- One row an action unit that has a counterpart among the blendshapes (left and right averaged):
--   blendshape    the counterpart
--   faces         faces with both
--   mean_au, mean_blendshape
--   correlation   Pearson's, over faces; null if one of the two never changes
--
-- The scales differ, a probability beside a muscle's travel: the correlation counts, not the means. Low agreement
-- on good_faces.sql's faces is a reason to look at the videos before you believe either.
-- Needs `blendshapes` among output.tables. Runs on DuckDB and Spark SQL.
WITH pairs AS (
    SELECT faces.dataset, faces.release,
        AU01, browInnerUp AS b01,
        AU02, (browOuterUpLeft + browOuterUpRight) / 2 AS b02,
        AU04, (browDownLeft + browDownRight) / 2 AS b04,
        AU05, (eyeWideLeft + eyeWideRight) / 2 AS b05,
        AU06, (cheekSquintLeft + cheekSquintRight) / 2 AS b06,
        AU07, (eyeSquintLeft + eyeSquintRight) / 2 AS b07,
        AU09, (noseSneerLeft + noseSneerRight) / 2 AS b09,
        AU10, (mouthUpperUpLeft + mouthUpperUpRight) / 2 AS b10,
        AU12, (mouthSmileLeft + mouthSmileRight) / 2 AS b12,
        AU14, (mouthDimpleLeft + mouthDimpleRight) / 2 AS b14,
        AU15, (mouthFrownLeft + mouthFrownRight) / 2 AS b15,
        AU17, mouthShrugLower AS b17,
        AU20, (mouthStretchLeft + mouthStretchRight) / 2 AS b20,
        AU24, (mouthPressLeft + mouthPressRight) / 2 AS b24,
        AU26, jawOpen AS b26,
        AU28, (mouthRollLower + mouthRollUpper) / 2 AS b28,
        AU43, (eyeBlinkLeft + eyeBlinkRight) / 2 AS b43
    FROM faces
    JOIN blendshapes USING (dataset, release, video_id, frame_index, face_index)
), long AS (
    SELECT dataset, release, 'AU01' AS au, 'browInnerUp' AS blendshape, AU01 AS a, b01 AS b FROM pairs
    UNION ALL SELECT dataset, release, 'AU02', 'browOuterUp', AU02, b02 FROM pairs
    UNION ALL SELECT dataset, release, 'AU04', 'browDown', AU04, b04 FROM pairs
    UNION ALL SELECT dataset, release, 'AU05', 'eyeWide', AU05, b05 FROM pairs
    UNION ALL SELECT dataset, release, 'AU06', 'cheekSquint', AU06, b06 FROM pairs
    UNION ALL SELECT dataset, release, 'AU07', 'eyeSquint', AU07, b07 FROM pairs
    UNION ALL SELECT dataset, release, 'AU09', 'noseSneer', AU09, b09 FROM pairs
    UNION ALL SELECT dataset, release, 'AU10', 'mouthUpperUp', AU10, b10 FROM pairs
    UNION ALL SELECT dataset, release, 'AU12', 'mouthSmile', AU12, b12 FROM pairs
    UNION ALL SELECT dataset, release, 'AU14', 'mouthDimple', AU14, b14 FROM pairs
    UNION ALL SELECT dataset, release, 'AU15', 'mouthFrown', AU15, b15 FROM pairs
    UNION ALL SELECT dataset, release, 'AU17', 'mouthShrugLower', AU17, b17 FROM pairs
    UNION ALL SELECT dataset, release, 'AU20', 'mouthStretch', AU20, b20 FROM pairs
    UNION ALL SELECT dataset, release, 'AU24', 'mouthPress', AU24, b24 FROM pairs
    UNION ALL SELECT dataset, release, 'AU26', 'jawOpen', AU26, b26 FROM pairs
    UNION ALL SELECT dataset, release, 'AU28', 'mouthRoll', AU28, b28 FROM pairs
    UNION ALL SELECT dataset, release, 'AU43', 'eyeBlink', AU43, b43 FROM pairs
)
SELECT dataset, release, au, blendshape,
    count(*) AS faces,
    avg(a) AS mean_au,
    avg(b) AS mean_blendshape,
    CASE WHEN min(a) < max(a) AND min(b) < max(b) THEN corr(a, b) END AS correlation
FROM long
GROUP BY dataset, release, au, blendshape
ORDER BY dataset, release, au
