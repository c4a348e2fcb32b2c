SELECT max(id) AS id FROM procrastinate_jobs WHERE queueing_lock = %(lock)s
