DROP TRIGGER IF EXISTS batches_written;
DROP VIEW IF EXISTS batches;

-- Made anew with each migration. A whole commit as one statement: the writer gives the
-- interpreter lock up once and not for every row. Each column holds a JSON array, one element a job; NULL where there is nothing.
CREATE VIEW batches AS SELECT
    NULL AS owner, NULL AS added, NULL AS keyed, NULL AS succeeded, NULL AS changed,
    NULL AS dropped, NULL AS handed;

CREATE TRIGGER batches_written INSTEAD OF INSERT ON batches BEGIN
    -- First, as they give their keys up.
    DELETE FROM jobs
    WHERE id IN (SELECT value FROM json_each(new.dropped))
        AND (owner = new.owner OR owner IS NULL) AND finished_at IS NULL;

    -- A job that is there already comes from a ledger; a key that is there is another job's.
    INSERT INTO jobs
        (id, task, call, options, queued_at, run_after, priority, key, after, owner,
            origin)
    SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
        iif(json_extract(value, '$[9]'), new.owner, NULL), json_extract(value, '$[10]')
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
        logs = mark.logs, owner = iif(mark.is_held, new.owner, NULL),
        past = coalesce(mark.past, jobs.past)
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
            json_extract(value, '$[13]') AS is_held, json_extract(value, '$[14]') AS past
        FROM json_each(new.changed)
    ) AS mark
    -- The plus signs keep the planner from looking the jobs up by their owner.
    WHERE jobs.id = mark.id AND +jobs.owner = new.owner AND +jobs.finished_at IS NULL
        AND jobs.attempt <= mark.attempt;

    UPDATE jobs SET
        engine = mark.engine, finished_at = mark.at, status = 'queued', owner = NULL
    FROM (
        SELECT
            json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS engine,
            json_extract(value, '$[2]') AS at
        FROM json_each(new.handed)
    ) AS mark
    WHERE jobs.id = mark.id AND +jobs.owner = new.owner AND +jobs.finished_at IS NULL;
END;
