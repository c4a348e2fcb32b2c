SELECT EXISTS (
    SELECT 1 FROM jobs INDEXED BY jobs_open
    WHERE owner IS NULL AND finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
)
