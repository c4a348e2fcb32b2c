-- Jobs that are waiting or running are few, and have partial indexes.
SELECT id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s AND status = 'todo'
UNION ALL
SELECT id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s AND status = 'doing'
