-- Of the jobs that were running when their owner died: the third time they have failed.
-- (The plus sign has SQLite go from the attempts to the jobs.)
-- An attempt that is over by what was written of it since is none of them.
UPDATE jobs SET
    attempt = max(jobs.attempt, begun.attempt),
    interrupted = interrupted + 1,
    crashes = crashes + 1,
    status = iif(crashes + 1 >= :limit, 'failed', 'queued'),
    started_at = coalesce(started_at, :now),
    finished_at = iif(crashes + 1 >= :limit, :now, NULL),
    error = iif(crashes + 1 >= :limit, :error, error),
    run_after = NULL
FROM (
    SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS attempt
    FROM json_each(:begun)
) AS begun
WHERE jobs.id = begun.id AND +jobs.owner = :owner AND jobs.finished_at IS NULL
    AND (begun.attempt > jobs.attempt OR jobs.status = 'running')
