-- When does AU12, which pulls the corners of the lips, start and end, face by face?
--
-- Episodes follow `derive.action_units` of the config: by default AU12 reaches 0.5 and stays at 0.35 or above, so that
-- values in between do not split a smile. One row per episode:
--   start_us, end_us      first and last sampled frame of it, presentation time
--   apex_us, apex         the strongest frame (the first if several are equal) and its AU12
--   faces                 number of sampled frames
--   cut_at_start, cut_at_end   the track's start or end, a cut or a gap hides how it began or ended
--
-- Other thresholds: `featray derive OUT --set derive.action_units...`. AU columns are probabilities, not intensities.
-- Times are as fine as the sampling. Needs `events`. Runs on DuckDB and Spark SQL.
SELECT dataset, release, video_id, track_id, start_us, end_us, peak_us AS apex_us, peak AS apex, frames AS faces,
    open_start AS cut_at_start, open_end AS cut_at_end
FROM events
WHERE kind = 'AU12'
ORDER BY dataset, release, video_id, track_id, start_us
