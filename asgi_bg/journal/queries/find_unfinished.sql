SELECT {_row}
FROM jobs
WHERE id IN ({_unfinished})
    AND status = :status
    AND +id < coalesce(:after, '~') AND (:task IS NULL OR task = :task)
ORDER BY id DESC LIMIT :limit
