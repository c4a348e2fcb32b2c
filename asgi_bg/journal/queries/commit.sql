INSERT INTO batches (owner, added, keyed, succeeded, changed, dropped, handed)
VALUES (:owner, :added, :keyed, :succeeded, :changed, :dropped, :handed)
