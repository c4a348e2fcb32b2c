-- Jobs of which one column says that they have ended and another that they have not.
SELECT id FROM jobs
WHERE (status IN ('succeeded', 'failed', 'cancelled')) <> (finished_at IS NOT NULL)
    AND engine IS NULL
