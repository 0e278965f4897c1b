"""A manifest of an older schema: read as it stands, migrated by the first writer, refused only if it is newer.

`tests/fixtures/version-0.1` is a sweep that version 0.1 left behind; its README says what happened in it.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest import migrate
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.rows import Parent
from orchestrator.model.sweep import Objective, State
from tests.unit import manifests

OLD = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "sweep"
STATES = [
    State.SUCCEEDED,
    State.SUCCEEDED,
    State.FAILED,
    State.SUCCEEDED,
    State.RUNNING,
    State.RUNNING,
    State.LAUNCHING,
]
NEW = {"choices", "best_metrics", "best_step"}  # columns
DIES = """
import os, signal, sqlite3, sys
from pathlib import Path
connect = sqlite3.connect
left = int(sys.argv[2])

def count(text):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

def traced(*words, **options):
    connection = connect(*words, **options)
    connection.set_trace_callback(count)
    return connection

sqlite3.connect = traced
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.writer import Manifest
Manifest.open(SweepFolder(Path(sys.argv[1]))).close()
"""


@pytest.fixture
def old(tmp_path: Path) -> SweepFolder:
    """A copy of the sweep that version 0.1 left, write-ahead log included."""
    shutil.copytree(OLD, tmp_path / "work")
    return SweepFolder(tmp_path / "work")


def view(folder: SweepFolder, name: str) -> list[dict[str, object]]:
    """A stable view, as a user reads it with SQLite alone, without the columns that are newer than schema 1."""
    with closing(sqlite3.connect(folder.manifest)) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1")]
    return [{key: value for key, value in row.items() if key not in NEW} for row in found]


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check(reader: Reader) -> None:
    """What a reader finds in the old sweep, before and after its migration."""
    assert [row.state for row in reader.trials()] == STATES
    best = manifests.best(reader, Objective("loss", "min", "best"))
    assert best is not None
    assert (best.overrides, best.objective, best.metrics) == ({"x": 0}, 0.25, {"loss": 0.25, "accuracy": 0.3})
    assert [(row.best_step, row.best_metrics) for row in reader.trials()] == [
        best_of(reader.series(row.trial_id)) for row in reader.trials()
    ]
    killed = reader.attempts("3d15e2493f9e")
    assert [(row.state, row.plan, row.purpose) for row in killed] == [
        (State.FAILED, 1, "trial"),
        (State.SUCCEEDED, 1, "trial"),
    ]
    assert (killed[1].restored, killed[1].parent) == (1, Parent(2, 1, 1))
    assert [(row.deterministic, row.method, row.ignored) for row in killed] == [("warn", "fork", None)] * 2
    assert killed[0].resources == {
        "gpus": "auto", "cpus": 1.0, "memory": 0, "custom": {}, "labels": {}, "alone": "",
    }  # fmt: skip
    (running, _) = [row for row in reader.running() if row.state is State.RUNNING]
    assert running.plan == 2
    plan = reader.plan_of(running)
    assert plan is not None
    assert plan.argv == ("do=hold", "x=0,1,2,3,4,5,6")
    assert reader.series("3d15e2493f9e") == {step: {"loss": 2 / (step + 1), "accuracy": step / 10} for step in range(4)}


def best_of(series: dict[int, dict[str, float]]) -> tuple[int | None, dict[str, float]]:
    """The step with the lowest loss, and its metrics: every row of this sweep has all of them."""
    step = min(series, key=lambda each: series[each]["loss"], default=None)
    return step, {} if step is None else series[step]


def digests(folder: Path) -> dict[str, str]:
    """Of every file but the index of the write-ahead log, which readers make anew."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_reader_writes_nothing(old: SweepFolder) -> None:
    before = digests(old.path)
    with Reader(old) as reader:
        check(reader)
    assert digests(old.path) == before


def test_a_read_only_copy_of_an_ended_sweep_is_read(old: SweepFolder) -> None:
    """Nobody can make the index of a log there: the file is opened as immutable, and the views are temporary."""
    with closing(sqlite3.connect(old.manifest)) as connection:  # version 0.1 did so at its clean end
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    with closing(migrate.connect_reader(old.manifest, immutable=True)) as connection:
        found = connection.execute("SELECT count(*) FROM trial_attempt WHERE deterministic = 'warn'").fetchone()[0]
    assert found == 9


def test_the_first_writer_migrates(old: SweepFolder) -> None:
    trials, reports = view(old, "trials"), view(old, "reports")
    Manifest.open(old).close()
    assert version(old.manifest) == migrate.version()
    assert view(old, "trials") == trials
    assert view(old, "reports") == reports
    with Reader(old) as reader:
        check(reader)


def test_cursors_of_followers_stay_true(old: SweepFolder) -> None:
    """A follower's cursor is a number of a change: old ones keep theirs, new ones are above every old number."""
    with Reader(old) as reader:
        before = [(row.trial_id, row.attempt, row.changed) for row in reader.changed_attempts(0)]
    with closing(Manifest.open(old)) as manifest:
        with Reader(old) as reader:
            assert [(row.trial_id, row.attempt, row.changed) for row in reader.changed_attempts(0)] == before
        with manifest.transaction():
            assert manifest.attempts.recover(manifests.NOW) == 3
        with Reader(old) as reader:
            assert len(reader.changed_attempts(before[-1][2])) == 3


def test_the_copy_from_before_is_kept_and_not_replaced(old: SweepFolder) -> None:
    copy = old.path / "manifest.db.schema-1"
    Manifest.open(old).close()
    assert version(copy) == 1
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM attempt").fetchone()[0] == 9
    kept = copy.read_bytes()
    for _ in range(2):
        Manifest.open(old).close()
    assert copy.read_bytes() == kept
    assert version(old.path / "manifest.db.backup") == migrate.version()


def test_without_a_copy_nothing_is_changed(old: SweepFolder) -> None:
    (old.path / ".manifest.db.schema-1.part").mkdir()
    trials = view(old, "trials")
    with pytest.raises(ManifestError, match="cannot keep a copy of it before its schema is changed"):
        Manifest.open(old)
    assert version(old.manifest) == 1
    assert view(old, "trials") == trials


def test_a_damaged_manifest_is_not_migrated(old: SweepFolder) -> None:
    Manifest.open(old).close()
    shutil.copy(old.path / "manifest.db.schema-1", old.manifest)
    (old.path / "manifest.db.schema-1").unlink()
    data = bytearray(old.manifest.read_bytes())
    data[8192:12288] = bytes(4096)
    old.manifest.write_bytes(data)
    with pytest.raises(ManifestError, match="damaged"):
        Manifest.open(old)
    assert old.manifest.read_bytes()[60:64] == (1).to_bytes(4, "big")  # where SQLite keeps user_version


@pytest.mark.parametrize("statement", [1, 6, 12, 18, 24, 30])
def test_killed_while_it_migrates(old: SweepFolder, statement: int) -> None:
    """All of a migration is there, or nothing of it; the next start goes on."""
    trials = view(old, "trials")
    command = [sys.executable, "-c", DIES, str(old.path), str(statement)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert view(old, "trials") == trials
    Manifest.open(old).close()
    assert (version(old.manifest), version(old.path / "manifest.db.schema-1")) == (migrate.version(), 1)
    assert view(old, "trials") == trials
    with Reader(old) as reader:
        check(reader)


def test_readers_of_old_manifests_know_every_column(old: SweepFolder, tmp_path: Path) -> None:
    """Else a query of today would fail on an old manifest, in a command that no test runs on one."""
    Manifest.open(manifests.create(tmp_path / "new")).close()
    new = SweepFolder(tmp_path / "new" / "s")
    known, wanted = columns(old), columns(new)
    missing = {name: wanted[name] - known.get(name, set()) for name in wanted}
    assert not any(missing.values()), missing


def columns(folder: SweepFolder) -> dict[str, set[str]]:
    with closing(migrate.connect_reader(folder.manifest)) as connection:
        schemas = "SELECT name FROM main.sqlite_master UNION SELECT name FROM temp.sqlite_master"
        tables = {
            row[0]
            for row in connection.execute(f"SELECT name FROM ({schemas}) WHERE name NOT LIKE '%\\_%' ESCAPE '\\'")
        }
        return {
            name: {part[0] for part in connection.execute(f"SELECT * FROM {name} LIMIT 0").description}
            for name in tables | {"trial_attempt"}
        }
