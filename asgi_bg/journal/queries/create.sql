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

-- A whole commit as one statement: the writer gives the interpreter lock up once and not for
-- every row. Each column holds a JSON array, one element a job; NULL where there is nothing.
CREATE VIEW batches AS SELECT
    NULL AS owner, NULL AS added, NULL AS keyed, NULL AS succeeded, NULL AS changed,
    NULL AS dropped;

CREATE TRIGGER batches_written INSTEAD OF INSERT ON batches BEGIN
    -- First, as they give their keys up.
    DELETE FROM jobs
    WHERE id IN (SELECT value FROM json_each(new.dropped))
        AND (owner = new.owner OR owner IS NULL) AND finished_at IS NULL;

    -- A job that is there already comes from a ledger; a key that is there is another job's.
    INSERT INTO jobs
        (id, task, call, options, queued_at, run_after, priority, key, after, owner)
    SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
        iif(json_extract(value, '$[9]'), new.owner, NULL)
    FROM json_each(new.added) WHERE TRUE
    ON CONFLICT DO NOTHING;

    INSERT OR IGNORE INTO twins (id, job)
    SELECT json_extract(value, '$[0]'), jobs.id
    FROM json_each(new.keyed)
    JOIN jobs ON jobs.key = json_extract(value, '$[1]') AND jobs.id <> json_extract(value, '$[0]')
    WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = json_extract(value, '$[0]'));

    UPDATE jobs SET
        status = 'succeeded', attempt = mark.attempt, started_at = mark.started_at,
        finished_at = mark.finished_at, run_after = NULL, result = mark.result,
        error = NULL, traceback = NULL, owner = NULL
    FROM (
        SELECT
            json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS attempt,
            json_extract(value, '$[2]') AS started_at,
            json_extract(value, '$[3]') AS finished_at, json_extract(value, '$[4]') AS result
        FROM json_each(new.succeeded)
    ) AS mark
    -- The plus signs keep the planner from looking the jobs up by their owner.
    WHERE jobs.id = mark.id AND +jobs.owner = new.owner AND +jobs.finished_at IS NULL
        AND jobs.attempt <= mark.attempt;

    UPDATE jobs SET
        status = mark.status, attempt = mark.attempt, interrupted = mark.interrupted,
        run_after = mark.run_after, started_at = mark.started_at,
        finished_at = mark.finished_at, progress = mark.progress, message = mark.message,
        result = mark.result, error = mark.error, traceback = mark.traceback,
        logs = mark.logs, owner = iif(mark.is_held, new.owner, NULL)
    FROM (
        SELECT
            json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS status,
            json_extract(value, '$[2]') AS attempt,
            json_extract(value, '$[3]') AS interrupted,
            json_extract(value, '$[4]') AS run_after,
            json_extract(value, '$[5]') AS started_at,
            json_extract(value, '$[6]') AS finished_at,
            json_extract(value, '$[7]') AS progress, json_extract(value, '$[8]') AS message,
            json_extract(value, '$[9]') AS result, json_extract(value, '$[10]') AS error,
            json_extract(value, '$[11]') AS traceback, json_extract(value, '$[12]') AS logs,
            json_extract(value, '$[13]') AS is_held
        FROM json_each(new.changed)
    ) AS mark
    -- The plus signs keep the planner from looking the jobs up by their owner.
    WHERE jobs.id = mark.id AND +jobs.owner = new.owner AND +jobs.finished_at IS NULL
        AND jobs.attempt <= mark.attempt;
END;
