-- A manifest of schema 1: its attempts as schema 2 has them, and the tables that it lacks. `read.sql` follows.

CREATE TEMP VIEW sweep AS SELECT *, '' AS writer FROM main.sweep;

CREATE TEMP VIEW attempt_2 AS
SELECT a.*,
       'trial' AS purpose,
       coalesce((SELECT max(p.plan) FROM main.plan p WHERE p.code = a.code AND p.created <= a.created), t.plan) AS plan,
       CASE WHEN a.restored IS NOT NULL THEN a.trial END AS parent_trial,
       (SELECT max(c.attempt) FROM main.checkpoint c
        WHERE c.trial = a.trial AND c.attempt < a.attempt AND c.step = a.restored) AS parent_attempt,
       a.restored AS parent_step,
       t.resources AS resources,
       NULL AS ignored,
       (SELECT json_extract(spec, '$.deterministic') FROM main.plan WHERE plan = coalesce(
            (SELECT max(p.plan) FROM main.plan p WHERE p.code = a.code AND p.created <= a.created), t.plan
        )) AS deterministic
FROM main.attempt a JOIN main.trial t ON t.id = a.trial;

CREATE TEMP VIEW change AS
SELECT 0 AS id, 0 AS trial, 0 AS attempt, 0.0 AS time, '' AS event, '' AS state, '{}' AS detail WHERE 0;

CREATE TEMP VIEW decision AS
SELECT 0 AS number, 0.0 AS time, '' AS kind, 0 AS trial, '{}' AS payload, 0 AS last_report, 0 AS last_change WHERE 0;
