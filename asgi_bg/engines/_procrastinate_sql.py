"""The statements about Procrastinate's tables that its own functions lack."""

from __future__ import annotations

__all__ = ["FIND", "FIND_ENDED", "FORGET", "KNOWN_AMONG", "LOOK", "NOTE", "TABLES"]

TABLES = """
SELECT
    to_regclass('procrastinate_jobs') IS NOT NULL AS are_there,
    to_regtype('procrastinate_job_to_defer_v1') IS NOT NULL AS are_new
"""

# Jobs that are waiting or running are few, and have partial indexes.
FIND = """
SELECT id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s AND status = 'todo'
UNION ALL
SELECT id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s AND status = 'doing'
"""

FIND_ENDED = """
SELECT max(id) AS id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s
"""

# What has ended is looked for among the last ones only: there is no index on this column.
KNOWN_AMONG = """
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
"""

LOOK = """
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
"""

# Only while it is still the same attempt, and nobody else has noted a crash of its worker.
NOTE = """
UPDATE procrastinate_jobs SET args = args || %(notes)s
WHERE id = %(number)s AND status = 'doing' AND attempts = %(attempts)s
    AND coalesce(args -> 'crashes', '0') = to_jsonb(%(crashes)s::int)
RETURNING id
"""

FORGET = """
DELETE FROM procrastinate_jobs WHERE id = %(number)s AND task_name = %(task)s
    AND status NOT IN ('todo', 'doing')
"""
