SELECT id, token FROM owners WHERE token <> :token ORDER BY id
