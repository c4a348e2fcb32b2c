-- What has ended is looked for among the last ones only: there is no index on this column.
SELECT jobs.queueing_lock AS lock
FROM procrastinate_jobs AS jobs JOIN unnest(%(locks)s::text[]) AS sent
    ON jobs.queueing_lock = sent
WHERE jobs.status = 'todo'
UNION
SELECT jobs.queueing_lock
FROM procrastinate_jobs AS jobs JOIN unnest(%(locks)s::text[]) AS sent
    ON jobs.queueing_lock = sent
WHERE jobs.status = 'doing'
UNION
SELECT jobs.queueing_lock
FROM procrastinate_jobs AS jobs JOIN unnest(%(locks)s::text[]) AS sent
    ON jobs.queueing_lock = sent
WHERE jobs.id > (SELECT max(id) FROM procrastinate_jobs) - %(last)s
