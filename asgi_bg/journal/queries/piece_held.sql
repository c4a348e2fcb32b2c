-- A piece of the jobs that processes have.
SELECT * FROM jobs
WHERE id IN (
        SELECT jobs.id FROM owners
        CROSS JOIN jobs INDEXED BY jobs_open ON jobs.owner = owners.id
            AND finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
    )
    AND +id < coalesce(:after, '~')
ORDER BY id DESC LIMIT :piece
