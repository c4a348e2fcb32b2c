DELETE FROM owners WHERE id = :owner
