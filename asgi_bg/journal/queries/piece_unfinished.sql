-- A piece of the jobs that have not ended here.
SELECT * FROM jobs
WHERE id IN ({_unfinished})
    AND +id < coalesce(:after, '~')
ORDER BY id DESC LIMIT :piece
