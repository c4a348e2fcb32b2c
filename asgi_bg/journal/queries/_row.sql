-- What a JobRow is made of, of a job.
    id, task, call, options, queued_at, run_after, priority, key, after, status, attempt,
    interrupted, crashes, started_at, finished_at,
    (SELECT 'pid:' || pid FROM owners WHERE owners.id = owner), progress, message, result,
    error, traceback, logs, is_recovered, engine, origin, past
