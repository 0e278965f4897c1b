"""Which results are stale: made with files of the project that have changed since, by any attempt that they rest on.

Which files an attempt used stands in a file of the sweep's folder `provenance`, which its end names (`change.detail`).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache

from orchestrator.files import keep_by_hash
from orchestrator.folder.code_changes import CodeFiles, changed, code_files
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest import db

_USED, _READ = "used", "used-read"  # how these files begin; the second where the attempt read what is not in its copy
_PLAN_CODE = """
    CREATE TEMP VIEW plan_code AS SELECT plan, code, json_extract(provenance, '$.tree') AS tree FROM plan
"""
# What results are compared with: the code of the latest plan, unless `compare_with_today` says otherwise.
_CODE_NOW = "CREATE TEMP VIEW code_now AS SELECT plan, code, tree FROM plan_code ORDER BY plan DESC LIMIT 1"
_CODE_TODAY = "CREATE TEMP VIEW code_now AS SELECT 0 AS plan, code_today() AS code, 'today' AS tree"
USED = "(SELECT json_extract(detail, '$.used') FROM change WHERE id = {0}.changed AND event = 'ended')"
LAST_USED = f"""
    SELECT {USED.format("a")} FROM trial t JOIN trial_attempt a ON a.trial = t.id
    WHERE t.trial_id = ? AND a.state = 'SUCCEEDED' ORDER BY a.attempt DESC LIMIT 1
"""
# Whether every plan had the code that results are compared with.
ONE_CODE = """
    SELECT count(DISTINCT code || ' ' || coalesce(tree, '')) < 2 AND NOT other_code_read()
    FROM (SELECT code, tree FROM plan_code UNION ALL SELECT code, tree FROM code_now)
"""
_CHANGED = f"""
    CASE WHEN {{0}}.plan = (SELECT plan FROM code_now) AND NOT other_code_read() THEN 0 ELSE code_changed(
        {{0}}.code, (SELECT tree FROM plan_code WHERE plan = {{0}}.plan), {USED},
        (SELECT code FROM code_now), (SELECT tree FROM code_now)) END
"""
_PARENT = "coalesce({0}.parent_trial, {0}.trial), min(coalesce({0}.parent_attempt, {0}.attempt - 1), {0}.attempt - 1)"
_BEFORE = """
    WITH RECURSIVE before (trial, attempt) AS (
        SELECT {parent_a}
        UNION SELECT {parent_b} FROM before JOIN attempt b USING (trial, attempt) WHERE b.restored IS NOT NULL)
""".format(parent_a=_PARENT.format("a"), parent_b=_PARENT.format("b"))
# A condition on an attempt `a` that has succeeded. What it restored was made by other attempts, and so on.
STALE = f"""({_CHANGED.format("a")} OR (a.restored IS NOT NULL AND EXISTS (
    {_BEFORE} SELECT 1 FROM before JOIN attempt b USING (trial, attempt) WHERE {_CHANGED.format("b")})))"""
# What was used by the attempts because of which a result is stale, and of which copy: the latest first.
STALE_CODE = f"""
    SELECT (SELECT tree FROM plan_code WHERE plan = a.plan) AS tree, {USED.format("a")} AS used
    FROM trial_attempt a JOIN trial x ON x.id = a.trial JOIN trials t USING (trial_id)
    WHERE t.stale AND {_CHANGED.format("a")} GROUP BY 1, 2 ORDER BY max(a.plan) DESC
"""
_STALE_COLUMN = f"""
    CASE WHEN t.state = 'SUCCEEDED' THEN (
        SELECT {STALE} FROM trial x JOIN trial_attempt a ON a.trial = x.id
        WHERE x.trial_id = t.trial_id AND a.attempt = t.attempts) ELSE 0 END AS stale
"""


class Copies:
    """The copies of the code in a sweep's folder."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self.today: CodeFiles | None = None
        self.files = cache(self._files)
        self.used = cache(self._used)
        self.changed = cache(self._changed)

    def _files(self, tree: str) -> CodeFiles | None:
        if tree == "today":
            return self.today
        return code_files(self._folder.code / tree) if tree else None

    def _used(self, name: str | None) -> Collection[str] | None:
        """What an attempt used, from the file of this name; None if that is not known."""
        if not name:
            return None
        try:
            found = json.loads((self._folder.provenance / name).read_bytes())
        except (OSError, ValueError):
            return None
        return frozenset(found)

    def _changed(self, old_code: str, old: str | None, used: str | None, new_code: str, new: str | None) -> bool:
        if old and old == new and not (used or "").startswith(_READ):
            return False
        before, after = self.files(old or ""), self.files(new or "")
        if before is None or after is None:
            return old_code != new_code
        return bool(changed(before, after, self.used(used)))

    def other_code_read(self) -> bool:
        """Whether an attempt read a file that is not what its copy of the code has."""
        return any(self._folder.provenance.glob(f"{_READ}-*"))


def install(connection: db.Connection, folder: SweepFolder) -> Copies:
    """Have the connection know `STALE`."""
    copies = Copies(folder)
    connection.create_function("code_changed", 5, lambda *facts: int(copies.changed(*facts)), deterministic=True)
    connection.create_function("other_code_read", 0, copies.other_code_read, deterministic=True)
    connection.execute(_PLAN_CODE)
    connection.execute(_CODE_NOW)
    return copies


def compare_with_today(connection: db.Connection, copies: Copies, today: CodeFiles, code: str) -> None:
    """From now on, compare with the code of the project as it is. `code`: the hash of its source files."""
    copies.today = today
    connection.create_function("code_today", 0, lambda: code, deterministic=True)
    connection.execute("DROP VIEW temp.code_now")
    connection.execute(_CODE_TODAY)


def show_stale(connection: db.Connection) -> None:
    """Have the view `trials` of this connection say what is stale: by itself, it knows the hash of all files only."""
    source = "main.trials"
    older = connection.execute("SELECT sql FROM temp.sqlite_master WHERE name = 'trials'").fetchone()
    if older:  # the view of a manifest of an older schema
        _, _, select = older[0].partition(" AS")
        connection.execute("DROP VIEW temp.trials")
        connection.execute(f"CREATE TEMP VIEW schema_trials AS{select}")
        source = "temp.schema_trials"
    columns = [row[0] for row in connection.execute(f"SELECT * FROM {source} LIMIT 0").description]
    shown = ", ".join(_STALE_COLUMN if name == "stale" else f"t.{name}" for name in columns)
    connection.execute(f"CREATE TEMP VIEW trials AS SELECT {shown} FROM {source} t")


def keep_used(folder: SweepFolder, text: str) -> str:
    """Keep the names of files that an attempt used, as JSON text; returns the name of the file, "" for no text."""
    if not text:
        return ""
    kind = _READ if "\\u0000" in text else _USED  # see `as_read`
    return keep_by_hash(folder.provenance, kind, text.encode(), ".json")
