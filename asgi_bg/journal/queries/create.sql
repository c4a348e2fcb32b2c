CREATE TABLE owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,
    pid INTEGER NOT NULL
) STRICT;

-- One row a job. The id sorts by the time the job was added.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    call TEXT NOT NULL,
    options TEXT,
    queued_at REAL NOT NULL,
    run_after REAL,
    priority INTEGER NOT NULL,
    key TEXT,
    after TEXT,
    status TEXT NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    attempt INTEGER NOT NULL DEFAULT 0,
    interrupted INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    started_at REAL,
    finished_at REAL,
    owner INTEGER,
    progress REAL,
    message TEXT NOT NULL DEFAULT '',
    result TEXT,
    error TEXT,
    traceback TEXT,
    logs TEXT,
    is_recovered INTEGER NOT NULL DEFAULT 0,
    is_cancelled INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Jobs that somebody holds, and those that may be claimed, in the order to claim them.
CREATE INDEX jobs_open ON jobs (owner, priority DESC, id)
    WHERE finished_at IS NULL AND (run_after IS NULL OR owner IS NOT NULL);
-- Jobs that are put off and nobody's, in the order they come due.
CREATE INDEX jobs_put_off ON jobs (run_after)
    WHERE finished_at IS NULL AND run_after IS NOT NULL AND owner IS NULL;
-- Those of them that are to be tried again.
CREATE INDEX jobs_retried ON jobs (attempt)
    WHERE finished_at IS NULL AND run_after IS NOT NULL AND owner IS NULL AND attempt > 0;
CREATE INDEX jobs_ended ON jobs (status, id) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_key ON jobs (key) WHERE key IS NOT NULL;
CREATE INDEX jobs_cancelled ON jobs (owner) WHERE is_cancelled = 1 AND finished_at IS NULL;

-- Ids given to jobs that lost the race for a key, and the job that won it.
CREATE TABLE twins (id TEXT PRIMARY KEY, job TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- How many jobs there are of each status; one row.
CREATE TABLE tally (
    queued INTEGER NOT NULL,
    running INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL
) STRICT;
INSERT INTO tally VALUES (0, 0, 0, 0, 0);

CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
    UPDATE tally SET
        queued = queued + (new.status = 'queued'),
        running = running + (new.status = 'running'),
        succeeded = succeeded + (new.status = 'succeeded'),
        failed = failed + (new.status = 'failed'),
        cancelled = cancelled + (new.status = 'cancelled');
END;

CREATE TRIGGER jobs_changed AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
    UPDATE tally SET
        queued = queued + (new.status = 'queued') - (old.status = 'queued'),
        running = running + (new.status = 'running') - (old.status = 'running'),
        succeeded = succeeded + (new.status = 'succeeded') - (old.status = 'succeeded'),
        failed = failed + (new.status = 'failed') - (old.status = 'failed'),
        cancelled = cancelled + (new.status = 'cancelled') - (old.status = 'cancelled');
END;

CREATE TRIGGER jobs_removed AFTER DELETE ON jobs BEGIN
    UPDATE tally SET
        queued = queued - (old.status = 'queued'),
        running = running - (old.status = 'running'),
        succeeded = succeeded - (old.status = 'succeeded'),
        failed = failed - (old.status = 'failed'),
        cancelled = cancelled - (old.status = 'cancelled');
END;
