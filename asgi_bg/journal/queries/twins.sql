SELECT id, job FROM twins WHERE id IN (SELECT value FROM json_each(:ids))
