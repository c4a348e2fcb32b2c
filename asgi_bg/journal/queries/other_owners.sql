SELECT id, token FROM owners WHERE token <> :token
