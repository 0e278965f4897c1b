"""Scratch folders and drafts in places where other users can write too."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.files import scratch, sync

NOBODY = 65534


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's scratch folder will be."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"orchestrate-{os.getuid()}"


def test_scratch_is_for_this_user_alone(place: Path) -> None:
    before = os.umask(0)
    try:
        assert scratch() == place
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o7777 == 0o700
    place.chmod(0o777)
    assert scratch() == place
    assert place.stat().st_mode & 0o7777 == 0o700


def _link(place: Path, theirs: Path) -> None:
    place.symlink_to(theirs)


def _dangling_link(place: Path, theirs: Path) -> None:
    place.symlink_to(theirs / "nothing")


def _file(place: Path, theirs: Path) -> None:
    place.write_text("")


def _pipe(place: Path, theirs: Path) -> None:
    os.mkfifo(place)


def _folder_of_another_user(place: Path, theirs: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder to another user")
    place.mkdir(mode=0o777)
    os.chown(place, NOBODY, NOBODY)


@pytest.mark.fault(
    "disk", "another user has planted the scratch folder", "a link, a file, his own folder", "refused by name"
)
@pytest.mark.parametrize("plant", [_link, _dangling_link, _file, _pipe, _folder_of_another_user])
def test_what_another_user_has_planted_is_no_scratch(
    place: Path, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    plant(place, theirs)
    before = place.lstat().st_mode
    with pytest.raises(PermissionError, match=str(place)):
        scratch()
    assert (place.lstat().st_mode, theirs.stat().st_mode & 0o777) == (before, 0o755)
    assert list(theirs.iterdir()) == []


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path: Path) -> None:
    sync(tmp_path)
    sync(Path("/proc"))  # says EINVAL, as some network file systems do
    with pytest.raises(OSError, match="Invalid argument"):
        sync(Path("/proc/self/status"))
