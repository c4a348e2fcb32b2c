-- One statement, so that both are of one moment.
SELECT kept.status, kept.number, coalesce(found.number, 0)
FROM (
    SELECT 'queued' AS status, queued AS number FROM tally
    UNION ALL SELECT 'running', running FROM tally
    UNION ALL SELECT 'succeeded', succeeded FROM tally
    UNION ALL SELECT 'failed', failed FROM tally
    UNION ALL SELECT 'cancelled', cancelled FROM tally
) AS kept
LEFT JOIN (
    SELECT status, count(*) AS number FROM jobs WHERE engine IS NULL GROUP BY status
) AS found ON found.status = kept.status
