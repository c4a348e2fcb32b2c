-- What begins with char(2) is sealed, and is looked at elsewhere.
SELECT id FROM jobs
WHERE (substr(call, 1, 1) <> char(2) AND NOT json_valid(call))
    OR (options IS NOT NULL AND NOT json_valid(options))
    OR (origin IS NOT NULL AND NOT json_valid(origin))
    OR (substr(result, 1, 1) <> char(2) AND NOT json_valid(result))
    OR (substr(logs, 1, 1) <> char(2) AND NOT json_valid(logs))
    OR (substr(past, 1, 1) <> char(2) AND NOT json_valid(past))
