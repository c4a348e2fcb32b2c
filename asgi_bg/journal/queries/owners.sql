SELECT owners.id, token, pid, (
    SELECT count(*) FROM jobs INDEXED BY jobs_open
    WHERE owner = owners.id AND finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
)
FROM owners ORDER BY owners.id
