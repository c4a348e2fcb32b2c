-- A piece of all jobs.
SELECT * FROM jobs
WHERE id < coalesce(:after, '~')
ORDER BY id DESC LIMIT :piece
