SELECT {_row},
    -- Whether the job before it, of the same request, has yet to have its turn.
    after IS NOT NULL AND EXISTS (
        SELECT 1 FROM jobs AS former
        WHERE former.id = jobs.after AND former.finished_at IS NULL
            AND former.run_after IS NULL
    )
FROM jobs INDEXED BY jobs_open
WHERE owner IS NULL AND finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
ORDER BY priority DESC, id
LIMIT :limit
