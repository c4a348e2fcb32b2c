SELECT count(*) FROM jobs INDEXED BY jobs_ended
WHERE status = 'failed' AND finished_at IS NOT NULL AND (:task IS NULL OR task = :task)
