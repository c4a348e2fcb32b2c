-- Those that have to be counted one by one, up to a limit.
SELECT
    (SELECT count(*) FROM (
        SELECT 1 FROM jobs INDEXED BY jobs_retried
        WHERE finished_at IS NULL AND run_after IS NOT NULL AND owner IS NULL AND attempt > 0
        LIMIT :limit
    )),
    (SELECT count(*) FROM (
        SELECT 1 FROM jobs INDEXED BY jobs_ended
        WHERE status = 'queued' AND finished_at IS NOT NULL LIMIT :limit
    ))
