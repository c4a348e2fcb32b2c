SELECT id FROM twins WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = twins.job)
