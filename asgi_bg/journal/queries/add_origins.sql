-- From version 2 to 3: jobs know the request that added them, and their former attempts.
ALTER TABLE jobs ADD COLUMN origin TEXT;
ALTER TABLE jobs ADD COLUMN past TEXT;
