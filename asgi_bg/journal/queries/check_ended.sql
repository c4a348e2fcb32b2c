-- A job is never older than the time in its id, which bounds the search.
SELECT count(*) FROM jobs INDEXED BY jobs_ended
WHERE status = :status AND finished_at IS NOT NULL AND id <= :newest AND finished_at <= :before
