"""Where a Ray of our own keeps its files."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.executors.ray.folder import RayFolder

SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
HOLDER = """
from orchestrator.executors.ray.folder import RayFolder
print(RayFolder.make().path, flush=True)
input()
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is shorter than pytest's."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="o-") as root:
        yield Path(root)


@contextmanager
def made() -> Iterator[RayFolder]:
    folder = RayFolder.make()
    yield folder
    folder.remove()
    assert not folder.path.exists()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def test_a_private_folder_where_the_user_wants_it(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    with made() as folder:
        assert folder.path.parent == short
        found = folder.path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, folder.note) == (0o700, os.getuid(), "")
        monkeypatch.setenv("RAY_TMPDIR", "/tmp")
        with made() as other:
            assert other.path.parent == Path("/tmp")


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("long-" + 60 * "x", "too long for Ray's sockets"),
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
    ],
)
def test_another_folder_if_that_one_does_not_do(
    short: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str, why: str
) -> None:
    (short / ("long-" + 60 * "x")).mkdir()
    (short / "file").touch()
    monkeypatch.setenv(name, str(short / folder))
    with made() as ours:
        assert ours.path.parent == Path("/tmp")
        assert len(str(ours.path / SOCKET)) <= 107
        assert ours.note == f"{name}={short / folder} ({why}): Ray keeps its files in {ours.path}"


def test_a_relative_folder_is_made_absolute(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "tmp").mkdir()
    monkeypatch.chdir(short)
    monkeypatch.setenv("TMPDIR", "tmp")
    with made() as folder:
        assert (folder.path.parent, folder.note) == (short / "tmp", "")


def test_folders_of_dead_sweeps_are_removed_and_no_others(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    dead, alive = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)
    (dead / "session_latest").symlink_to(short)
    holders[0].send_signal(signal.SIGKILL)
    holders[0].communicate()
    others = [short / "ray", short / "ray-of-somebody"]
    for other in others:
        other.mkdir()
    link = short / "ray-link"
    link.symlink_to(alive)
    with made():
        assert not dead.exists()
        assert all(path.exists() for path in (alive, link, *others))
    holders[1].communicate("\n")
    link.unlink()
    with made():
        assert not alive.exists(), "its process has ended without removing it"
