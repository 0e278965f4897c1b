-- The manifest of one sweep. Decisions (sweep, plan, trial, attempt) and measurements (report, checkpoint, notice)
-- live in different tables. A trial's state is derived from its attempts, in the view `trials`, and nowhere stored.
-- Only `trials` and `reports` are promised to stay as they are; read those.

CREATE TABLE sweep (
    uid     TEXT NOT NULL,              -- random; makes run ids of trackers unique across sweeps
    name    TEXT NOT NULL,
    created REAL NOT NULL               -- all times: seconds since the epoch
);

CREATE TABLE plan (                     -- one row each time `orchestrate sweep` planned
    plan       INTEGER PRIMARY KEY,
    created    REAL NOT NULL,
    file       TEXT NOT NULL,
    argv       TEXT NOT NULL,           -- JSON: the overrides of the command line
    spec       TEXT NOT NULL,           -- JSON: the checked `sweep` section
    provenance TEXT NOT NULL,           -- JSON: git commit, packages, host
    code       TEXT NOT NULL,           -- hash of the project's files; '' where the trainer is installed
    cwd        TEXT NOT NULL,
    total      INTEGER,                 -- trials; NULL until all are written
    excluded   INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    ended      REAL                     -- of its last run
);

CREATE TABLE trial (
    id          INTEGER PRIMARY KEY,
    trial_id    TEXT NOT NULL UNIQUE,
    plan        INTEGER NOT NULL,       -- the last plan that holds it
    position    INTEGER NOT NULL,       -- in that plan, from 0
    seed        INTEGER NOT NULL,
    config_id   TEXT NOT NULL,          -- the same for all repeats of a config
    overrides   TEXT NOT NULL,          -- JSON: only what varies, dotted keys
    config      TEXT NOT NULL,          -- JSON
    refs        TEXT NOT NULL,          -- JSON: dotted key -> "${...}", resolved where the trial starts
    resources   TEXT NOT NULL,          -- JSON
    resubmitted INTEGER NOT NULL DEFAULT 0   -- a further attempt was asked for after this one
);
CREATE INDEX trial_plan ON trial (plan, position);

CREATE TABLE attempt (
    trial     INTEGER NOT NULL REFERENCES trial (id),
    attempt   INTEGER NOT NULL,         -- from 1
    lineage   INTEGER NOT NULL,         -- the attempt that began the series this one continues
    state     TEXT NOT NULL,
    retry     INTEGER NOT NULL DEFAULT 0,    -- decided at its end: another attempt follows
    cause     TEXT NOT NULL DEFAULT '',
    message   TEXT NOT NULL DEFAULT '',
    traceback TEXT NOT NULL DEFAULT '',
    place     TEXT NOT NULL DEFAULT '', -- the user's frame: train.py:88
    created   REAL NOT NULL,
    started   REAL,
    ended     REAL,
    entered   REAL,                     -- `train` was called
    returned  REAL,                     -- `train` returned
    node      TEXT NOT NULL DEFAULT '',
    node_id   TEXT NOT NULL DEFAULT '',
    gpus      TEXT NOT NULL DEFAULT '[]',
    gpu_uuids TEXT NOT NULL DEFAULT '[]',
    pid       INTEGER,
    threads   INTEGER,
    method    TEXT NOT NULL DEFAULT '', -- fork, spawn or inline
    code      TEXT NOT NULL DEFAULT '',
    restored  INTEGER,                  -- step of the checkpoint it went on from
    seq       INTEGER NOT NULL DEFAULT -1,   -- last batch of events applied
    last      TEXT NOT NULL DEFAULT '{}',    -- JSON: last value of each metric
    objective REAL,
    changed   INTEGER NOT NULL,         -- grows with every change of any attempt
    PRIMARY KEY (trial, attempt)
) WITHOUT ROWID;
CREATE INDEX attempt_changed ON attempt (changed);
CREATE INDEX attempt_open ON attempt (state) WHERE state IN ('LAUNCHING', 'RUNNING');

CREATE TABLE report (
    id      INTEGER PRIMARY KEY,
    trial   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    time    REAL NOT NULL,
    metrics TEXT NOT NULL               -- JSON; "NaN", "Infinity" and "-Infinity" are strings
);
CREATE INDEX report_trial ON report (trial, attempt, step);

CREATE TABLE checkpoint (
    trial   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    path    TEXT NOT NULL,
    saved   REAL NOT NULL,
    PRIMARY KEY (trial, attempt, step)
) WITHOUT ROWID;

CREATE TABLE notice (
    id      INTEGER PRIMARY KEY,
    trial   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    text    TEXT NOT NULL
);

-- One row a trial. `due`: it waits for an attempt. `current`: the latest plan holds it.
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
LEFT JOIN attempt a
    ON a.trial = t.id AND a.attempt = (SELECT max(attempt) FROM attempt WHERE trial = t.id);

-- The effective series of every trial: of the last lineage, rows up to the restored step from earlier attempts,
-- later ones from the attempt that went on. Rows of one step are to be merged, later ids over earlier.
CREATE VIEW reports AS
SELECT r.id, t.trial_id, r.attempt, r.step, r.time, r.metrics
FROM report r
JOIN trial t ON t.id = r.trial
JOIN attempt a ON a.trial = r.trial AND a.attempt = r.attempt
WHERE a.lineage = (SELECT lineage FROM attempt l WHERE l.trial = r.trial ORDER BY l.attempt DESC LIMIT 1)
  AND NOT EXISTS (
      SELECT 1 FROM attempt later
      WHERE later.trial = r.trial AND later.attempt > r.attempt AND later.lineage = a.lineage
        AND later.restored IS NOT NULL AND later.restored < r.step
  );
