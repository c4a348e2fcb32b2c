-- From version 1 to 2: jobs can be handed over to an engine. Such a job is still 'queued', as
-- far as the journal knows, and it is over for the journal: `finished_at` says since when.
ALTER TABLE jobs ADD COLUMN engine TEXT;

DROP TRIGGER jobs_added;
DROP TRIGGER jobs_changed;
DROP TRIGGER jobs_removed;

-- Jobs that an engine has are not counted.
CREATE TRIGGER jobs_added AFTER INSERT ON jobs WHEN new.engine IS NULL BEGIN
    UPDATE tally SET
        queued = queued + (new.status = 'queued'),
        running = running + (new.status = 'running'),
        succeeded = succeeded + (new.status = 'succeeded'),
        failed = failed + (new.status = 'failed'),
        cancelled = cancelled + (new.status = 'cancelled');
END;

CREATE TRIGGER jobs_changed AFTER UPDATE OF status ON jobs
WHEN old.status <> new.status AND old.engine IS NULL BEGIN
    UPDATE tally SET
        queued = queued + (new.status = 'queued') - (old.status = 'queued'),
        running = running + (new.status = 'running') - (old.status = 'running'),
        succeeded = succeeded + (new.status = 'succeeded') - (old.status = 'succeeded'),
        failed = failed + (new.status = 'failed') - (old.status = 'failed'),
        cancelled = cancelled + (new.status = 'cancelled') - (old.status = 'cancelled');
END;

CREATE TRIGGER jobs_handed_over AFTER UPDATE OF engine ON jobs
WHEN old.engine IS NULL AND new.engine IS NOT NULL BEGIN
    UPDATE tally SET
        queued = queued - (old.status = 'queued'), running = running - (old.status = 'running');
END;

CREATE TRIGGER jobs_removed AFTER DELETE ON jobs WHEN old.engine IS NULL BEGIN
    UPDATE tally SET
        queued = queued - (old.status = 'queued'),
        running = running - (old.status = 'running'),
        succeeded = succeeded - (old.status = 'succeeded'),
        failed = failed - (old.status = 'failed'),
        cancelled = cancelled - (old.status = 'cancelled');
END;
