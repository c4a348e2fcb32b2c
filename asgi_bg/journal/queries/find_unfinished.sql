SELECT
    id, task, call, options, queued_at, run_after, priority, key, after, status, attempt,
    interrupted, crashes, started_at, finished_at,
    (SELECT 'pid:' || pid FROM owners WHERE owners.id = jobs.owner), progress, message, result,
    error, traceback, logs, is_recovered, engine, origin, past
FROM jobs
WHERE id IN (
        SELECT id FROM jobs
        WHERE finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
        UNION ALL
        SELECT id FROM jobs
        WHERE finished_at IS NULL AND run_after IS NOT NULL AND owner IS NULL
        UNION ALL  -- handed over to an engine
        SELECT id FROM jobs INDEXED BY jobs_ended
        WHERE status = 'queued' AND finished_at IS NOT NULL
    )
    AND status = :status
    AND +id < coalesce(:after, '~') AND (:task IS NULL OR task = :task)
ORDER BY id DESC LIMIT :limit
