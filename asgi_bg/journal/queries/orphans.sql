SELECT id, task, 0 FROM jobs INDEXED BY jobs_open
WHERE owner = :owner AND finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
