SELECT {_row}
FROM jobs
WHERE id = coalesce((SELECT job FROM twins WHERE id = :id), :id)
