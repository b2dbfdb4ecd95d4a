-- Which videos are missing or incomplete, and why?
--
-- One row per video that is not `ok`, the worst first:
--   status      failed: nothing could be used; partial: some of it
--   codes       its error codes, each once, in alphabetical order
--   errors      rows of `errors`
--   message     of its first error
--   frames      existing sampled frames
--   covered     share of the header's duration up to the last sampled frame; null without a duration.
--               Frames missing before the last one are not considered
--
-- `featray run CONFIG --retry-failed` retries these videos. Runs on DuckDB.
WITH reasons AS (
    SELECT dataset, release, video_id,
        string_agg(DISTINCT error_code, ', ' ORDER BY error_code) AS codes,
        count(*) AS errors,
        first(message ORDER BY unit NULLS FIRST, "at", error_code) AS message
    FROM errors
    GROUP BY ALL
), reach AS (
    SELECT dataset, release, video_id, max(pts_us) - min(pts_us) AS reach_us
    FROM frames
    GROUP BY ALL
)
SELECT dataset, release, uri, member, video_id, status, codes, coalesce(errors, 0) AS errors, message,
    frames_sampled AS frames,
    coalesce(reach_us, 0) / nullif(duration_us, 0) AS covered
FROM videos
LEFT JOIN reasons USING (dataset, release, video_id)
LEFT JOIN reach USING (dataset, release, video_id)
WHERE status <> 'ok'
ORDER BY status, dataset, release, uri, member
