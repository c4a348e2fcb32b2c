INSERT INTO batches (owner, added, keyed, succeeded, changed, dropped)
VALUES (:owner, :added, :keyed, :succeeded, :changed, :dropped)
