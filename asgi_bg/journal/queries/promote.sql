-- Jobs that were put off and are due join those that wait.
UPDATE jobs SET run_after = NULL
WHERE id IN (
    SELECT id FROM jobs INDEXED BY jobs_put_off
    WHERE finished_at IS NULL AND run_after IS NOT NULL AND owner IS NULL AND run_after <= :now
    ORDER BY run_after LIMIT :limit
)
