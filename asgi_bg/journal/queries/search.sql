-- What matches in a piece of the jobs, which is one of the queries piece_...
SELECT {_row}
FROM ({piece})
WHERE (:status IS NULL OR status = :status) AND (:task IS NULL OR task = :task)
    AND (:like IS NULL OR id LIKE :like ESCAPE '\' OR task LIKE :like ESCAPE '\'
        OR key LIKE :like ESCAPE '\' OR message LIKE :like ESCAPE '\'
        OR error LIKE :like ESCAPE '\' OR origin LIKE :like ESCAPE '\'
        OR call LIKE :like ESCAPE '\')
ORDER BY id DESC LIMIT :limit
