-- The jobs that have not ended here, by the three indexes that know them.
        SELECT id FROM jobs
        WHERE finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL)
        UNION ALL
        SELECT id FROM jobs
        WHERE finished_at IS NULL AND run_after IS NOT NULL AND owner IS NULL
        UNION ALL  -- handed over to an engine
        SELECT id FROM jobs INDEXED BY jobs_ended
        WHERE status = 'queued' AND finished_at IS NOT NULL
