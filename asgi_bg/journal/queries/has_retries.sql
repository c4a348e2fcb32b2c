SELECT EXISTS (
    SELECT 1 FROM jobs INDEXED BY jobs_retried
    WHERE finished_at IS NULL AND run_after IS NOT NULL AND owner IS NULL AND attempt > 0
)
