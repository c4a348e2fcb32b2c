-- The last job of the piece that was looked at, and how many it has.
SELECT min(id), count(*) FROM ({piece})
