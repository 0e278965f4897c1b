"""The manifest as a file: live, dead, copied, damaged, on a full disk or a network."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from orchestrator import __version__
from orchestrator.errors import LockedError, ManifestError
from orchestrator.folder.mounts import Mount
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest import db, migrate
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.sweep import State
from tests.unit import manifests
from tests.unit.manifests import begin, plan, report, run, trial_id, trial_spec


def query(folder: SweepFolder, sql: str) -> list[tuple[object, ...]]:
    """As a user of the documented views does it, with SQLite alone."""
    with closing(sqlite3.connect(folder.manifest)) as connection:
        return connection.execute(sql).fetchall()


def test_readers_and_the_writer_do_not_wait_for_each_other(manifest: Manifest) -> None:
    plan(manifest, [trial_spec(1)])
    with Reader(manifest.folder) as reader, reader.snapshot():
        assert reader.counts() == {State.PENDING: 1}
        run(manifest, 1)
        assert reader.counts() == {State.PENDING: 1}, "one instant"
    with manifest.transaction(), Reader(manifest.folder) as reader:
        manifest.trials.resubmit([trial_id(1)])
        assert reader.counts() == {State.SUCCEEDED: 1}


def test_a_closed_sweep_is_one_file(folder: SweepFolder) -> None:
    with closing(Manifest.open(folder)) as manifest:
        plan(manifest, [trial_spec(1)])
        assert sorted(path.name for path in folder.path.glob("manifest*")) != ["manifest.db"]
    assert [path.name for path in folder.path.glob("manifest*")] == ["manifest.db"]
    with Reader(folder) as reader:
        assert reader.counts() == {State.PENDING: 1}
    assert [path.name for path in folder.path.glob("manifest*")] == ["manifest.db"]


def test_a_reader_that_stays_open_costs_nothing_but_the_journal(folder: SweepFolder, tmp_path: Path) -> None:
    manifest = Manifest.open(folder)
    plan(manifest, [trial_spec(1)])
    with Reader(folder) as reader:
        manifest.close()
        assert reader.counts() == {State.PENDING: 1}
        copied = tmp_path / "copy.db"
        shutil.copy(folder.manifest, copied)
    with closing(sqlite3.connect(copied)) as copy:
        assert copy.execute("SELECT count(*) FROM trials").fetchone() == (1,)
    with closing(Manifest.open(folder)):
        pass
    assert not list(folder.path.glob("manifest.db-*"))


@contextmanager
def nobody() -> Iterator[None]:
    """As a user who may write nothing of ours; root may write everywhere."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def public() -> Iterator[SweepFolder]:
    """A sweep's folder that every user can reach."""
    root = Path(tempfile.mkdtemp(prefix="orchestrate-test-"))
    root.chmod(0o755)
    yield manifests.create(root)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(root)


def read_only(folder: SweepFolder) -> None:
    for path in folder.path.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.path.chmod(0o555)


def test_a_read_only_folder_opens(public: SweepFolder) -> None:
    with closing(Manifest.open(public)) as manifest:
        plan(manifest, [trial_spec(1)])
    read_only(public)
    with nobody(), Reader(public) as reader:
        assert reader.counts() == {State.PENDING: 1}


def test_a_read_only_folder_opens_after_a_crash(public: SweepFolder) -> None:
    """The write-ahead log is still there, and holds what the file does not."""
    manifest = Manifest.open(public)
    plan(manifest, [trial_spec(1)])
    crashed = manifests.create(public.path.parent, "crashed")
    for path in public.path.glob("manifest*"):
        shutil.copy(path, crashed.path)
    manifest.close()
    read_only(crashed)
    with nobody(), Reader(crashed) as reader:
        assert reader.counts() == {State.PENDING: 1}


def test_a_folder_that_cannot_be_written_is_no_place_for_a_sweep(public: SweepFolder) -> None:
    with closing(Manifest.open(public)) as manifest:
        plan(manifest, [trial_spec(1)])
    read_only(public)
    with nobody(), pytest.raises(ManifestError, match=r"cannot (write|open) the manifest"):
        Manifest.open(public)


def test_a_live_manifest_of_another_user_opens(public: SweepFolder) -> None:
    with closing(Manifest.open(public)) as manifest:
        plan(manifest, [trial_spec(1)])
        with nobody(), Reader(public) as reader:
            assert reader.counts() == {State.PENDING: 1}


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_manifest_is_told(folder: SweepFolder, content: bytes) -> None:
    folder.manifest.write_bytes(content)
    for attempt in (Reader, Manifest.open):
        with pytest.raises(ManifestError, match="damaged") as told:
            attempt(folder)
        assert "move the folder away" in str(told.value)
        assert str(folder.manifest) in str(told.value)
    assert folder.manifest.read_bytes() == content, "nothing is done to it"


def test_a_truncated_manifest_is_told(folder: SweepFolder) -> None:
    with closing(Manifest.open(folder)) as manifest:
        plan(manifest, [trial_spec(each) for each in range(500)])
    with open(folder.manifest, "r+b") as file:
        file.truncate(folder.manifest.stat().st_size // 2)
    with pytest.raises(ManifestError, match="damaged"), Reader(folder) as reader:
        list(reader.trials())


def reopened(folder: SweepFolder) -> list[str]:
    """The trials that a new start finds."""
    with closing(Manifest.open(folder)), Reader(folder) as reader:
        return [row.trial_id for row in reader.trials()]


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b"", None])
def test_a_backup_brings_a_damaged_manifest_back(folder: SweepFolder, damage: bytes | None) -> None:
    with closing(Manifest.open(folder)) as manifest:
        plan(manifest, [trial_spec(each) for each in range(3)])
    assert not db.backup(folder.manifest).exists(), "there was nothing to keep"
    assert len(reopened(folder)) == 3
    names = ["manifest.db", "manifest.db.backup"]
    assert sorted(path.name for path in folder.path.glob("manifest.db*")) == names
    folder.manifest.unlink()
    if damage is not None:
        folder.manifest.write_bytes(damage)
    with pytest.raises(ManifestError, match=r"damaged|missing or empty") as told:
        Manifest.open(folder)
    command = str(told.value.fix).partition(" brings it back")[0]
    subprocess.run(command, shell=True, check=True)
    assert len(reopened(folder)) == 3


def test_a_damaged_manifest_does_not_take_the_place_of_its_backup(folder: SweepFolder) -> None:
    with closing(Manifest.open(folder)) as manifest:
        plan(manifest, [trial_spec(each) for each in range(500)])
    reopened(folder)
    kept = db.backup(folder.manifest).read_bytes()
    size = folder.manifest.stat().st_size
    with open(folder.manifest, "r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(ManifestError, match="damaged") as told:
        Manifest.open(folder)
    assert "manifest.db.backup" in str(told.value)
    assert db.backup(folder.manifest).read_bytes() == kept


def test_a_backup_that_cannot_be_written_stops_nothing(folder: SweepFolder) -> None:
    with closing(Manifest.open(folder)) as manifest:
        plan(manifest, [trial_spec(1)])
    (folder.path / ".manifest.db.backup.part").mkdir()
    assert reopened(folder) == [trial_id(1)]
    assert not db.backup(folder.manifest).exists()


@pytest.mark.parametrize("empty", [True, False])
def test_a_coordinator_that_died_before_the_schema_was_written(folder: SweepFolder, empty: bool) -> None:
    folder.manifest.touch()
    if not empty:
        with closing(sqlite3.connect(folder.manifest)) as begun:
            begun.execute("PRAGMA journal_mode = WAL")
        assert folder.manifest.stat().st_size
    with pytest.raises(ManifestError, match="nothing has been planned"):
        Reader(folder)
    with closing(Manifest.open(folder)) as manifest:
        plan(manifest, [trial_spec(1)])


def test_a_manifest_of_a_newer_version_is_refused_by_name(folder: SweepFolder) -> None:
    Manifest.open(folder).close()
    newer = migrate.version() + 1
    with closing(sqlite3.connect(folder.manifest)) as connection:
        connection.execute("UPDATE sweep SET writer = '9.8.7'")
        connection.execute(f"PRAGMA user_version = {newer}")
        connection.commit()
    for attempt in (Reader, Manifest.open):
        with pytest.raises(ManifestError) as told:
            attempt(folder)
        assert f"written by orchestrate 9.8.7 (schema {newer})" in str(told.value)
        assert f"this is orchestrate {__version__} (schema {newer - 1})" in str(told.value)


def test_no_manifest_at_all(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest here"):
        Reader(SweepFolder(tmp_path))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def report_until_full(manifest: Manifest, key: int, recorded: list[int]) -> None:
    for step in range(1000):
        report(manifest, key, 1, step, loss=1.0, text="x" * 1000)
        recorded.append(step)


def test_a_full_disk_is_told_and_loses_nothing(small_disk: Path) -> None:
    folder = manifests.create(small_disk)
    manifest = Manifest.open(folder)
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    ballast = small_disk / "ballast"
    fill(ballast)
    recorded: list[int] = []
    with pytest.raises(ManifestError, match=r"cannot write the manifest(.|\n)*free space"):
        report_until_full(manifest, key, recorded)
    ballast.unlink()
    report(manifest, key, 1, len(recorded), loss=1.0)
    manifest.close()
    with Reader(folder) as reader:
        assert sorted(reader.series(trial_id(1))) == [*recorded, len(recorded)]
    assert query(folder, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(("kind", "mode"), [("nfs4", "delete"), ("fuse.weka", "delete"), ("ext4", "wal")])
def test_a_network_file_system_gets_a_rollback_journal(folder: SweepFolder, kind: str, mode: str) -> None:
    with closing(db.connect_writer(folder.manifest, Mount("/", kind))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == mode


def test_a_manifest_that_stays_locked_is_told_with_its_mount(folder: SweepFolder) -> None:
    error = sqlite3.OperationalError("database is locked")
    with (
        pytest.raises(ManifestError, match=r"close what else has it open(.|\n)* on /(.|\n)*--runs DIR"),
        db.errors(folder.manifest),
    ):
        raise error


def test_a_commit_is_made_only_while_the_sweep_is_held(folder: SweepFolder) -> None:
    def lost() -> None:
        raise LockedError("another coordinator has taken this sweep over")

    with closing(Manifest.open(folder, lost)) as manifest, pytest.raises(LockedError):
        plan(manifest, [trial_spec(1)])
    assert query(folder, "SELECT count(*) FROM trial") == [(0,)]
