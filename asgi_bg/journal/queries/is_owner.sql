SELECT EXISTS (SELECT 1 FROM owners WHERE id = :owner AND token = :token)
