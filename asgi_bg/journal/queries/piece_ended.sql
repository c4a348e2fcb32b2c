-- A piece of the jobs that have ended so.
SELECT * FROM jobs INDEXED BY jobs_ended
WHERE status = :status AND finished_at IS NOT NULL AND id < coalesce(:after, '~')
ORDER BY id DESC LIMIT :piece
