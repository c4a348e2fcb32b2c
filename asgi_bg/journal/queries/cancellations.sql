SELECT id FROM jobs WHERE owner = :owner AND is_cancelled = 1 AND finished_at IS NULL
