SELECT
    status::text AS status, task_name, attempts,
    CASE WHEN args #>> '{envelope,id}' = queueing_lock THEN args - 'envelope' END AS notes,
    (SELECT max(at) FROM procrastinate_events
        WHERE job_id = jobs.id AND type = 'started') AS started_at,
    (SELECT max(at) FROM procrastinate_events
        WHERE job_id = jobs.id AND type IN ('succeeded', 'failed', 'cancelled', 'aborted')
    ) AS finished_at
FROM procrastinate_jobs AS jobs
WHERE id = %(number)s
