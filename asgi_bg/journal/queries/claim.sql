UPDATE jobs SET owner = :owner, is_recovered = 0
WHERE id IN (SELECT value FROM json_each(:ids)) AND owner IS NULL AND finished_at IS NULL
