-- A job is never older than the time in its id, which bounds the search.
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs INDEXED BY jobs_ended
    WHERE status = :status AND finished_at IS NOT NULL AND id <= :newest
        AND finished_at <= :before
    ORDER BY id LIMIT :limit
)
