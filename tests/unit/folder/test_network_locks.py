"""Locks on network file systems: which those are, and what holds where a lock reaches one machine only, or none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import LockedError, ManifestError
from orchestrator.folder.lock import Lock, Machine, Watch, holder_of
from orchestrator.folder.mounts import Mount, mount_of
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.query import Query
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from tests.unit import manifests

SOURCE = Path(__file__).parents[2] / "fixtures" / "locks" / "locks.c"


# ---------------------------------------------------------------- mounts


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/data/runs/a", "/data (nfs4)"),
        ("/data/local/a", "/data/local (xfs)"),
        ("/database/a", "/ (ext4)"),
        ("/team data/runs", "/team data (fuse.juicefs)"),
        ("/back\\slash/a", "/back\\slash (lustre)"),
        ("/twice/a", "/twice (nfs)"),
    ],
)
def test_the_innermost_mount_counts_and_the_later_one(tmp_path: Path, path: str, mount: str) -> None:
    table = tmp_path / "mounts"
    table.write_text(
        "/dev/sda / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0\n/dev/sdb /data/local xfs rw 0 0\n"
        "x /team\\040data fuse.juicefs rw 0 0\nx /back\\134slash lustre rw 0 0\n"
        "auto /twice autofs rw 0 0\nserver:/y /twice nfs rw 0 0\nhalf\n"
    )
    assert str(mount_of(Path(path), table)) == mount


def test_without_a_table_of_mounts_a_disk_is_local(tmp_path: Path) -> None:
    assert not mount_of(tmp_path, tmp_path / "nothing").network
    assert not mount_of(tmp_path).network


@pytest.mark.parametrize(
    ("kinds", "network"),
    [
        ("nfs nfs4 cifs smb3 lustre gpfs beegfs ceph glusterfs wekafs 9p virtiofs", True),
        ("fuse fuse.sshfs fuse.glusterfs fuse.juicefs fuse.ceph-fuse fuse.never-heard-of", True),
        ("ext4 xfs btrfs zfs tmpfs overlay fuseblk fuse.fuse-overlayfs unknown", False),
    ],
)
def test_kinds_of_file_systems(kinds: str, network: bool) -> None:
    assert {kind: Mount("/", kind).network for kind in kinds.split()} == dict.fromkeys(kinds.split(), network)


# ---------------------------------------------------------------- where locks fail


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build locks of a network file system with")
    target = tmp_path_factory.mktemp("locks") / "locks.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, SOURCE, "-ldl"], check=True)
    return target


def with_locks(library: Path, kind: str) -> dict[str, str]:
    """The environment of a process whose locks are of this kind."""
    return {**os.environ, "LD_PRELOAD": str(library), "FAKE_LOCKS": kind}


TAKE = """
import sys
from pathlib import Path
from orchestrator.folder.lock import Lock, holder_of
from orchestrator.folder.paths import SweepFolder
folder = SweepFolder(Path(sys.argv[1]))
print(holder_of(folder))
try:
    Lock.take(folder)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.fault("disk", "files cannot be locked", "`flock`, and the locks of SQLite", "refused; the mount is named")
@pytest.mark.parametrize("kind", ["no flock", "no fcntl"])
def test_a_sweep_is_refused_where_files_cannot_be_locked(folder: SweepFolder, library: Path, kind: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", TAKE, folder.path],
        env=with_locks(library, kind),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.startswith("None\nManifestError")
    assert f"cannot be locked on {mount_of(folder.path)}" in told
    assert "--runs DIR" in told


def test_a_lock_that_is_a_link_is_not_followed(folder: SweepFolder, tmp_path: Path) -> None:
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    folder.lock.symlink_to(victim)
    with pytest.raises(ManifestError):
        Lock.take(folder)
    assert victim.read_text() == "years of work"


# ---------------------------------------------------------------- where a lock reaches one machine only


@pytest.fixture
def machine(folder: SweepFolder) -> dict[str, Any]:
    """What both machines have in common: a network file system, and no patience."""
    table = folder.path.parent / "mounts"
    table.write_text("server:/x / nfs rw,nolock 0 0\n")
    return {"mounts": table, "renewal": 0.05, "watch": 0.6}


COORDINATE = """
import json, os, sys
from contextlib import closing
from pathlib import Path
from orchestrator.errors import OrchestratorError
from orchestrator.folder.lock import Lock, Machine
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.writer import Manifest
from tests.unit import manifests
settings = json.loads(sys.argv[2])
first = settings.pop("first")
folder = SweepFolder(Path(sys.argv[1]))
try:
    lock = Lock.take(folder, Machine(**{**settings, "mounts": Path(settings["mounts"])}))
    with closing(Manifest.open(folder, lock.check)) as manifest:
        print("held", os.getpid(), flush=True)
        for number, _ in enumerate(sys.stdin):
            manifests.plan(manifest, [manifests.trial_spec(first + number)])
            print("committed", flush=True)
    lock.release()
except OrchestratorError as error:
    print(type(error).__name__, str(error).replace(chr(10), " "), flush=True)
    lock.release()
"""


@contextmanager
def coordinator(
    folder: SweepFolder, library: Path, machine: dict[str, Any], host: str, first: int
) -> Iterator[subprocess.Popen[str]]:
    """A coordinator on a machine of its own: it commits a trial for each line that it gets."""
    settings = {**machine, "mounts": str(machine["mounts"]), "host": host, "boot": f"boot of {host}", "first": first}
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATE, folder.path, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=with_locks(library, "own"),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def commit(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return heard(process)


@pytest.mark.fault(
    "disk",
    "a lock that reaches one machine only",
    "NFS with `nolock`: two coordinators; the first is stopped, and goes on later",
    "the second is refused; it takes over once the first gives no sign of life, and the first commits nothing more",
)
def test_two_machines_do_not_hold_one_sweep(folder: SweepFolder, library: Path, machine: dict[str, Any]) -> None:
    with coordinator(folder, library, machine, "a", 1) as first:
        assert heard(first) == f"held {first.pid}"
        assert commit(first) == "committed"
        with coordinator(folder, library, {**machine, "watch": 10.0}, "b", 10) as refused:
            assert f"LockedError {folder.path}: another coordinator runs this sweep (pid {first.pid} on a" in heard(
                refused
            )
        assert commit(first) == "committed"
        first.send_signal(signal.SIGSTOP)
        with coordinator(folder, library, machine, "b", 10) as second:
            assert heard(second) == f"held {second.pid}"
            assert commit(second) == "committed"
            first.send_signal(signal.SIGCONT)
            assert f"another coordinator has taken this sweep over (pid {second.pid} on b" in commit(first)
            assert commit(second) == "committed", "the first has left the record of the second alone"
            said, _ = second.communicate()
            assert said == ""
    with Reader(folder) as reader:
        known = {row.trial_id for row in reader.trials(Query(everything=True))}
    assert known == {manifests.trial_id(number) for number in (1, 2, 10, 11)}
    assert folder.lock.read_text() == "", "the second has released it"


def test_another_machine_is_given_up_only_while_its_record_stays_as_it_is() -> None:
    watch = Watch("record 1", now=100.0, patience=60.0)
    assert not watch.given_up("record 1", 159.9)
    assert watch.given_up("record 1", 160.0)
    assert watch.given_up("", 101.0), "it has released the sweep"
    with pytest.raises(BlockingIOError):
        watch.given_up("record 2", 159.9)


def test_the_holder_on_another_machine_is_seen_while_it_renews(folder: SweepFolder, machine: dict[str, Any]) -> None:
    there, here = Machine(**machine, boot="there"), Machine(**{**machine, "watch": 60.0}, boot="here")
    lock = Lock.take(folder, there)
    record = folder.lock.read_bytes()
    lock.release()
    folder.lock.write_bytes(record)
    found = holder_of(folder, here)
    assert found is not None
    assert found.pid == os.getpid()
    assert holder_of(folder, there) is None, "on its own machine the lock itself says that the process is gone"
    assert holder_of(folder) is None, "on a local disk too"
    old = time.time() - 61
    os.utime(folder.lock, (old, old))
    assert holder_of(folder, here) is None


def test_a_crash_on_the_same_machine_costs_no_wait(folder: SweepFolder, machine: dict[str, Any]) -> None:
    crashed = Machine(**{**machine, "watch": 1e9}, boot="here")
    lock = Lock.take(folder, crashed)
    record = folder.lock.read_bytes()
    lock.release()
    folder.lock.write_bytes(record)
    Lock.take(folder, crashed).release()


def test_a_lock_that_was_taken_over_is_not_released(folder: SweepFolder, machine: dict[str, Any]) -> None:
    lock = Lock.take(folder, Machine(**machine))
    theirs = {**json.loads(folder.lock.read_text()), "host": "b", "boot": "b"}
    folder.lock.write_text(json.dumps(theirs))
    assert not lock.held
    with pytest.raises(LockedError, match=r"taken this sweep over .* on b"):
        lock.check()
    lock.release()
    assert json.loads(folder.lock.read_text()) == theirs


def test_on_a_local_disk_the_record_is_written_once(folder: SweepFolder) -> None:
    lock = Lock.take(folder)
    folder.lock.write_text("")
    lock.check()
    with Manifest.open(folder, lock.check).transaction():
        pass
    lock.release()
