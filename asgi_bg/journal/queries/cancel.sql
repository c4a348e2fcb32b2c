-- One that nobody owns ends; the owner of another one is asked to cancel it.
UPDATE jobs SET
    status = iif(owner IS NULL, 'cancelled', status),
    finished_at = iif(owner IS NULL, :now, NULL),
    error = iif(owner IS NULL, :reason, error),
    is_cancelled = owner IS NOT NULL
WHERE id = coalesce((SELECT job FROM twins WHERE id = :id), :id) AND finished_at IS NULL
