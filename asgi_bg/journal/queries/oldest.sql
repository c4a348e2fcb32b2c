-- Of one owner's jobs, or nobody's, that wait for their turn: the oldest one of the next lower
-- priority.
SELECT priority, queued_at FROM jobs INDEXED BY jobs_open
WHERE owner IS :owner AND finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
    AND priority < :below AND status = 'queued'
ORDER BY priority DESC, id LIMIT 1
