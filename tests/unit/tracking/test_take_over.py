"""A ledger of version 0.1 moves to its new place, whatever happens on the way, and nothing is delivered twice."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError, TrackingError
from orchestrator.folder.paths import SweepFolder
from orchestrator.tracking import control
from orchestrator.tracking.ledger import Ledger, address, take_over
from tests.wandb_server import Server

ROOT = Path(__file__).parents[3]
WRITTEN_BY_0_1 = ROOT / "tests" / "fixtures" / "version-0.1" / "sweep"
DELIVERED = {"66fbe6da2ab01bfa": "15", "6dec4e65dea109ed": "6", "b203bcf584cd3a34": "20", "cd532344816466be": "17"}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(Path(shutil.copytree(WRITTEN_BY_0_1, tmp_path / "runs" / "work")))


def test_only_what_version_0_1_has_not_delivered_is_sent(folder: SweepFolder, server: Server) -> None:
    shown = control.addresses(folder)
    assert list(shown) == ["W&B"]
    assert shown["W&B"].endswith("/someone/shop/groups/work")
    assert not folder.tracking.exists()  # to look writes nothing
    assert control.sync(folder, "wandb", lambda _: None) == 2
    assert {run.setting("x") for run in server.runs.values()} == {4, 5}
    assert {(tuple(run.steps), run.exit_code) for run in server.runs.values()} == {((0, 1), 255)}
    assert not folder.ledger_0_1.exists()


def test_a_tracker_of_version_0_1_that_is_at_work_is_not_disturbed(folder: SweepFolder) -> None:
    with open(folder.tracker_lock_0_1, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrackingError, match="is at work"):
            control.sync(folder, "wandb", lambda _: None)
    assert folder.ledger_0_1.exists()
    assert not folder.tracker_ledger("wandb").exists()


def _holds_everything(path: Path) -> None:
    with closing(Ledger(path, "online")) as ledger:
        assert ledger.cursor == 23
        assert {run: ledger.version(run) for run in DELIVERED} == DELIVERED
    assert (address(path) or "").endswith("/groups/work")


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from orchestrator.tracking.ledger import take_over

source, root = Path(sys.argv[1]), Path(sys.argv[2])


def killed_at(last, old, new):
    count = 0

    def count_down(frame, event, argument):
        nonlocal count
        count += event == "c_call"
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        sys.setprofile(count_down)
        take_over(old, new)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


number = 0
while True:
    number += 1
    folder = root / str(number)
    (folder / "tracking").mkdir(parents=True)
    old, new = Path(shutil.copy(source, folder)), folder / "tracking" / "wandb.db"
    if not killed_at(number, old, new):
        break
"""


def test_it_is_killed_at_any_instant_and_completed(tmp_path: Path) -> None:
    """SIGKILL before each call of a C function on the way."""
    command = [sys.executable, "-c", KILLED, str(WRITTEN_BY_0_1 / "tracker.db"), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, check=True)
    folders = list(tmp_path.iterdir())
    assert len(folders) > 25
    for folder in folders:
        old, new = folder / "tracker.db", folder / "tracking" / "wandb.db"
        assert old.exists() or new.exists()
        take_over(old, new)
        _holds_everything(new)
        assert [path.name for path in folder.iterdir()] == ["tracking"]
        assert [path.name for path in new.parent.iterdir()] == ["wandb.db"]


def test_what_a_killed_process_of_version_0_1_left(folder: SweepFolder) -> None:
    new = folder.tracker_ledger("wandb")
    new.parent.mkdir()
    take_over(folder.path / "nothing.db", new)
    assert not new.exists()
    folder.ledger_0_1.write_bytes(b"")  # before its schema was in it
    take_over(folder.ledger_0_1, new)
    assert not folder.ledger_0_1.exists()
    with closing(Ledger(new, "online")) as ledger:
        assert ledger.cursor == 0
    new.unlink()
    folder.ledger_0_1.write_text("no database at all" * 100)
    with pytest.raises(ManifestError, match=r"tracker\.db.*the tracker's ledger cannot be used") as caught:
        take_over(folder.ledger_0_1, new)
    assert "remove the file" in str(caught.value)
    assert not new.exists()


def test_an_interrupted_transaction_of_version_0_1_is_undone(folder: SweepFolder) -> None:
    """Its rollback journal is read before the ledger is."""
    with closing(sqlite3.connect(folder.ledger_0_1, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN")
        db.execute("UPDATE delivered SET version = 'wrong'")
        db.execute("CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) "
                   "SELECT i, hex(randomblob(100)) FROM n")  # fmt: skip
        left = folder.path / "left"
        left.mkdir()
        for path in folder.path.glob("tracker.db*"):
            shutil.copy(path, left)
    assert (left / "tracker.db-journal").exists()
    assert (left / "tracker.db").stat().st_size > (WRITTEN_BY_0_1 / "tracker.db").stat().st_size
    new = left / "wandb.db"
    take_over(left / "tracker.db", new)
    _holds_everything(new)
    assert [path.name for path in left.iterdir()] == ["wandb.db"]
