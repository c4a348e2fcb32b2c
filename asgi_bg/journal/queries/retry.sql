UPDATE jobs SET
    status = 'queued', attempt = 0, interrupted = 0, crashes = 0, run_after = NULL,
    started_at = NULL, finished_at = NULL, owner = NULL, engine = NULL, progress = NULL, message = '',
    is_cancelled = 0, past = :past
WHERE id = :id AND status IN ('failed', 'cancelled')
