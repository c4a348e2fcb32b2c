UPDATE jobs SET
    status = 'queued', attempt = 0, interrupted = 0, crashes = 0, run_after = NULL,
    started_at = NULL, finished_at = NULL, owner = NULL, engine = NULL, progress = NULL, message = '',
    is_cancelled = 0
WHERE id = coalesce((SELECT job FROM twins WHERE id = :id), :id)
    AND status IN ('failed', 'cancelled')
