SELECT id, task, 1 FROM jobs
WHERE id IN (SELECT json_extract(value, '$[0]') FROM json_each(:begun))
    AND owner = :owner AND status = 'failed' AND finished_at = :now
