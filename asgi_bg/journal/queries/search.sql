-- What matches in a piece of the jobs, which is one of the queries piece_...
SELECT
    id, task, call, options, queued_at, run_after, priority, key, after, status, attempt,
    interrupted, crashes, started_at, finished_at,
    (SELECT 'pid:' || pid FROM owners WHERE owners.id = piece.owner), progress, message, result,
    error, traceback, logs, is_recovered, engine, origin, past
FROM ({piece}) AS piece
WHERE (:status IS NULL OR status = :status) AND (:task IS NULL OR task = :task)
    AND (:like IS NULL OR id LIKE :like ESCAPE '\' OR task LIKE :like ESCAPE '\'
        OR key LIKE :like ESCAPE '\' OR message LIKE :like ESCAPE '\'
        OR error LIKE :like ESCAPE '\' OR origin LIKE :like ESCAPE '\'
        OR call LIKE :like ESCAPE '\')
ORDER BY id DESC LIMIT :limit
