SELECT task, status, queued_at, started_at, finished_at, engine IS NOT NULL
FROM jobs
WHERE id >= :first AND id < :last
ORDER BY id LIMIT :limit
