-- Schema 3: all metrics at the best step of the objective, and the choice of every config group.

DROP VIEW trials;

ALTER TABLE attempt ADD COLUMN best TEXT;          -- JSON: metrics at the best step; NULL where they are those of `last`
ALTER TABLE attempt ADD COLUMN best_step INTEGER;  -- NULL where no finite objective was reported
ALTER TABLE trial ADD COLUMN choices TEXT NOT NULL DEFAULT '{}';  -- JSON: config group -> option; '{}': not recorded

-- `best_of` is a function of the connection that migrates.
UPDATE attempt SET (best_step, best) = (
    SELECT json_extract(found, '$[0]'), json_extract(found, '$[1]') FROM (
        SELECT best_of(o.metric, o.mode, r.id, r.step, r.metrics) AS found
        FROM (
            SELECT json_extract(spec, '$.objective.metric') AS metric, json_extract(spec, '$.objective.mode') AS mode
            FROM plan ORDER BY plan DESC LIMIT 1
        ) o
        JOIN trial t ON t.id = attempt.trial
        JOIN reports r ON r.trial_id = t.trial_id
        WHERE o.metric IS NOT NULL
    )
)
WHERE attempt = (SELECT max(attempt) FROM trial_attempt l WHERE l.trial = attempt.trial);

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
       t.choices,
       coalesce(a.last, '{}') AS metrics,
       a.objective,
       coalesce(a.best, a.last, '{}') AS best_metrics,
       a.best_step,
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
