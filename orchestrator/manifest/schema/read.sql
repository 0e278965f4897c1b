-- An older manifest, seen by a reader of today: views that live in the reader's connection only. What schema 3 keeps of
-- the best step is found in the reports, where it is asked for. `attempt_2` is from `read-NNNN.sql`.

CREATE TEMP VIEW judged_by AS
SELECT json_extract(spec, '$.objective.metric') AS metric, json_extract(spec, '$.objective.mode') AS mode
FROM main.plan
WHERE plan = (SELECT max(plan) FROM main.plan) AND json_extract(spec, '$.objective.metric') IS NOT NULL;

CREATE TEMP VIEW attempt AS
SELECT a.*,
       CASE WHEN a.attempt = (SELECT max(attempt) FROM attempt_2 l WHERE l.trial = a.trial AND l.purpose = 'trial')
       THEN (SELECT json_extract(best_of(o.metric, o.mode, r.id, r.step, r.metrics), '$[1]')
             FROM judged_by o JOIN main.reports r ON r.trial_id = (SELECT trial_id FROM main.trial WHERE id = a.trial))
       END AS best,
       CASE WHEN a.attempt = (SELECT max(attempt) FROM attempt_2 l WHERE l.trial = a.trial AND l.purpose = 'trial')
       THEN (SELECT json_extract(best_of(o.metric, o.mode, r.id, r.step, r.metrics), '$[0]')
             FROM judged_by o JOIN main.reports r ON r.trial_id = (SELECT trial_id FROM main.trial WHERE id = a.trial))
       END AS best_step
FROM attempt_2 a;

CREATE TEMP VIEW trial AS SELECT *, '{}' AS choices FROM main.trial;

CREATE TEMP VIEW trial_attempt AS SELECT * FROM attempt WHERE purpose = 'trial';

-- One row a trial. `current`: the latest plan holds it.
CREATE TEMP VIEW trials AS
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
