-- Looks at a piece of the jobs that have ended so.
SELECT
    id, task, call, options, queued_at, run_after, priority, key, after, status, attempt,
    interrupted, crashes, started_at, finished_at,
    (SELECT 'pid:' || pid FROM owners WHERE owners.id = piece.owner), progress, message, result,
    error, traceback, logs, is_recovered, engine, origin, past
FROM (
    SELECT * FROM jobs INDEXED BY jobs_ended
    WHERE status = :status AND finished_at IS NOT NULL AND id < coalesce(:after, '~')
    ORDER BY id DESC LIMIT :piece
) AS piece
WHERE (:status IS NULL OR status = :status) AND (:task IS NULL OR task = :task)
    AND (:like IS NULL OR id LIKE :like ESCAPE '\' OR task LIKE :like ESCAPE '\'
        OR key LIKE :like ESCAPE '\' OR message LIKE :like ESCAPE '\'
        OR error LIKE :like ESCAPE '\' OR origin LIKE :like ESCAPE '\'
        OR call LIKE :like ESCAPE '\')
ORDER BY id DESC LIMIT :limit
