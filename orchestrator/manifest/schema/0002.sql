-- Schema 2: what an attempt really ran with, what it is for and where its state came from; a log of what became known;
-- decisions. Facts about attempts made before that nobody kept are NULL.

DROP VIEW trials;
DROP VIEW reports;

ALTER TABLE sweep ADD COLUMN writer TEXT NOT NULL DEFAULT '';   -- version of orchestrate that wrote here last

CREATE TABLE attempt_2 (
    trial          INTEGER NOT NULL REFERENCES trial (id),
    attempt        INTEGER NOT NULL,         -- from 1
    purpose        TEXT NOT NULL DEFAULT 'trial', -- 'trial', or 'verify': a rerun that only checks a result
    plan           INTEGER,                  -- the plan it was opened for
    lineage        INTEGER NOT NULL,         -- the attempt that began the series this one continues
    parent_trial   INTEGER,                  -- trial, attempt and step that the state it restored came from
    parent_attempt INTEGER,
    parent_step    INTEGER,
    state          TEXT NOT NULL,
    retry          INTEGER NOT NULL DEFAULT 0,    -- decided at its end: another attempt follows
    cause          TEXT NOT NULL DEFAULT '',
    message        TEXT NOT NULL DEFAULT '',
    traceback      TEXT NOT NULL DEFAULT '',
    place          TEXT NOT NULL DEFAULT '', -- the user's frame: train.py:88
    created        REAL NOT NULL,
    started        REAL,
    ended          REAL,
    entered        REAL,                     -- `train` was called
    returned       REAL,                     -- `train` returned
    node           TEXT NOT NULL DEFAULT '',
    node_id        TEXT NOT NULL DEFAULT '',
    gpus           TEXT NOT NULL DEFAULT '[]',
    gpu_uuids      TEXT NOT NULL DEFAULT '[]',
    pid            INTEGER,
    resources      TEXT,                     -- JSON: what it asked for
    ignored        TEXT,                     -- JSON: dotted key -> value, of the keys that are no part of the trial's id
    threads        INTEGER,
    deterministic  TEXT,                     -- warn, error or off
    method         TEXT NOT NULL DEFAULT '', -- how its process started: fork, spawn or inline
    code           TEXT NOT NULL DEFAULT '',
    restored       INTEGER,                  -- step of the checkpoint it continued from
    last           TEXT NOT NULL DEFAULT '{}',    -- JSON: last value of each metric
    objective      REAL,
    changed        INTEGER NOT NULL,         -- its last row in `change`
    PRIMARY KEY (trial, attempt)
) WITHOUT ROWID;

INSERT INTO attempt_2 (
    trial, attempt, plan, lineage, parent_trial, parent_attempt, parent_step, state, retry, cause, message, traceback,
    place, created, started, ended, entered, returned, node, node_id, gpus, gpu_uuids, pid, resources, threads, method,
    code, restored, last, objective, changed)
SELECT a.trial, a.attempt,
       coalesce((SELECT max(p.plan) FROM plan p WHERE p.code = a.code AND p.created <= a.created), t.plan),
       a.lineage,
       CASE WHEN a.restored IS NOT NULL THEN a.trial END,
       (SELECT max(c.attempt) FROM checkpoint c
        WHERE c.trial = a.trial AND c.attempt < a.attempt AND c.step = a.restored),
       a.restored, a.state, a.retry, a.cause, a.message, a.traceback, a.place, a.created, a.started, a.ended, a.entered,
       a.returned, a.node, a.node_id, a.gpus, a.gpu_uuids, a.pid, t.resources, a.threads, a.method, a.code, a.restored,
       a.last, a.objective, a.changed
FROM attempt a JOIN trial t ON t.id = a.trial;

DROP TABLE attempt;
ALTER TABLE attempt_2 RENAME TO attempt;
UPDATE attempt SET deterministic = (SELECT json_extract(spec, '$.deterministic') FROM plan WHERE plan = attempt.plan);
CREATE INDEX attempt_changed ON attempt (changed);
CREATE INDEX attempt_open ON attempt (state) WHERE state IN ('LAUNCHING', 'RUNNING');

-- The transitions of attempts, append-only. `id` shares one counter with report.id: together they are the order in
-- which things became known.
CREATE TABLE change (
    id      INTEGER PRIMARY KEY,
    trial   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    time    REAL NOT NULL,
    event   TEXT NOT NULL,              -- opened, started, restored, new_lineage or ended
    state   TEXT NOT NULL,              -- of the attempt from then on
    detail  TEXT NOT NULL DEFAULT '{}'  -- JSON
);

-- What was decided about the sweep as a whole or a trial, and how much was known then.
CREATE TABLE decision (
    number      INTEGER PRIMARY KEY,
    time        REAL NOT NULL,
    kind        TEXT NOT NULL,          -- abort: nothing more is started; leave_out: a node gets no more trials
    trial       INTEGER,
    payload     TEXT NOT NULL,          -- JSON
    last_report INTEGER NOT NULL,       -- the last report.id and change.id known by then; 0: none
    last_change INTEGER NOT NULL
);

-- The attempts that make up the sweep's results: all but those that only verify one.
CREATE VIEW trial_attempt AS SELECT * FROM attempt WHERE purpose = 'trial';

-- One row a trial. `current`: the latest plan holds it.
CREATE VIEW trials AS
SELECT t.trial_id,
       t.position,
       t.plan = (SELECT max(plan) FROM plan) AS current,
       CASE
           WHEN a.attempt IS NULL OR a.retry OR a.attempt <= t.resubmitted THEN 'PENDING'
           ELSE a.state
       END AS state,
       coalesce(a.cause, '') AS cause,
       coalesce(a.message, '') AS message,
       coalesce(a.place, '') AS place,
       t.overrides,
       t.config,
       t.seed,
       t.config_id,
       coalesce(a.last, '{}') AS metrics,
       a.objective,
       coalesce(a.attempt, 0) AS attempts,
       coalesce(a.node, '') AS node,
       coalesce(a.gpus, '[]') AS gpus,
       a.created,
       a.started,
       a.ended,
       coalesce(a.code, '') AS code,
       coalesce(a.state = 'SUCCEEDED' AND a.attempt > t.resubmitted AND a.code <> (
           SELECT code FROM plan ORDER BY plan DESC LIMIT 1
       ), 0) AS stale
FROM trial t
LEFT JOIN trial_attempt a
    ON a.trial = t.id AND a.attempt = (SELECT max(attempt) FROM trial_attempt WHERE trial = t.id);

-- The effective series of every trial: of the last lineage, rows up to the restored step from earlier attempts, later
-- ones from the attempt that continued. Rows of one step are to be merged, later ids over earlier.
CREATE VIEW reports AS
SELECT r.id, t.trial_id, r.attempt, r.step, r.time, r.metrics
FROM report r
JOIN trial t ON t.id = r.trial
JOIN trial_attempt a ON a.trial = r.trial AND a.attempt = r.attempt
WHERE a.lineage = (SELECT lineage FROM trial_attempt l WHERE l.trial = r.trial ORDER BY l.attempt DESC LIMIT 1)
  AND NOT EXISTS (
      SELECT 1 FROM trial_attempt later
      WHERE later.trial = r.trial AND later.attempt > r.attempt AND later.lineage = a.lineage
        AND later.restored IS NOT NULL AND later.restored < r.step
  );
