INSERT INTO owners (token, pid) VALUES (:token, :pid) RETURNING id
