-- Only while it is still the same attempt, and nobody else has noted a crash of its worker.
UPDATE procrastinate_jobs SET args = args || %(notes)s
WHERE id = %(number)s AND status = 'doing' AND attempts = %(attempts)s
    AND coalesce(args -> 'crashes', '0') = to_jsonb(%(crashes)s::int)
RETURNING id
