SELECT {_row}
FROM jobs INDEXED BY jobs_ended
WHERE status = :status AND finished_at IS NOT NULL
    AND id < coalesce(:after, '~') AND (:task IS NULL OR task = :task)
ORDER BY id DESC LIMIT :limit
