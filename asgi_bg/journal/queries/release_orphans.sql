UPDATE jobs INDEXED BY jobs_open SET owner = NULL, status = 'queued', is_recovered = 1
WHERE owner = :owner AND finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
