-- A manifest of schema 2: its attempts as they are. `read.sql` follows.

CREATE TEMP VIEW attempt_2 AS SELECT * FROM main.attempt;
