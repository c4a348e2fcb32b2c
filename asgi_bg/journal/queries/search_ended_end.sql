-- The last job of the piece that search_ended looks at, and how many it has.
SELECT min(id), count(*) FROM (
    SELECT id FROM jobs INDEXED BY jobs_ended
    WHERE status = :status AND finished_at IS NOT NULL AND id < coalesce(:after, '~')
    ORDER BY id DESC LIMIT :piece
)
