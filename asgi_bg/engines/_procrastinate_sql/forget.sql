DELETE FROM procrastinate_jobs WHERE id = %(number)s AND task_name = %(task)s
    AND status NOT IN ('todo', 'doing')
