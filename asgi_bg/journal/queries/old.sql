SELECT id, finished_at FROM jobs INDEXED BY jobs_ended
WHERE status = :status AND finished_at IS NOT NULL AND id > :after AND id <= :newest
ORDER BY id LIMIT :limit
