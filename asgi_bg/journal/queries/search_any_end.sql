-- The last job of the piece that search_any looks at, and how many it has.
SELECT min(id), count(*) FROM (
    SELECT id FROM jobs
    WHERE id < coalesce(:after, '~')
    ORDER BY id DESC LIMIT :piece
)
