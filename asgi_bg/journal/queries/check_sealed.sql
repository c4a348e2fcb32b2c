SELECT id, call, result, logs, past, message, error, traceback FROM jobs
WHERE substr(call, 1, 1) = char(2) OR substr(result, 1, 1) = char(2)
    OR substr(error, 1, 1) = char(2) OR substr(past, 1, 1) = char(2)
    OR substr(message, 1, 1) = char(2) OR substr(logs, 1, 1) = char(2)
    OR substr(traceback, 1, 1) = char(2)
