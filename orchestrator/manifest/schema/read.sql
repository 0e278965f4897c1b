-- An older manifest, seen by a reader of today: views that live in the reader's connection only. What schema 3 keeps of
-- the best step is found in the reports, where it is asked for. `attempt_2` is from `read-NNNN.sql`; the view `trials` of
-- today follows.

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
