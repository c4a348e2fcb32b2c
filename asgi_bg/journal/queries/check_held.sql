-- Jobs of an owner that the journal does not know: nobody takes them over.
SELECT id FROM jobs
WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM owners)
