"""A disk that is full, a folder that may not be written, a manifest that is damaged."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.bed import Bed, Series
from tests.ray.support import PATIENCE, until

BAD_INPUT = 2


@pytest.fixture
def small(bed: Bed) -> Iterator[Path]:
    """The bed's `runs` is a disk of 4 MB of its own, seen by its commands; the path by which the test sees it."""
    bed.runs.mkdir()
    script = f"mount -t tmpfs -o size=4m none {bed.runs} && echo ready && exec sleep 600"
    words = ["unshare", "-Urm", "--propagation", "private", "sh", "-c", script]
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("needs unshare and nsenter")
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert holder.stdout is not None
    if holder.stdout.readline() != "ready\n":
        holder.communicate()
        pytest.skip("no mount namespaces on this machine")
    inside = ("nsenter", "-t", str(holder.pid), "-U", "-m", "--preserve-credentials")
    bed.command = (*inside, "sh", "-c", 'cd "$0" && exec "$@"', str(bed.root), *bed.command)
    yield Path(f"/proc/{holder.pid}/root{bed.runs}")
    bed.end()
    holder.kill()
    holder.communicate()


def fill(disk: Path) -> Path:
    """Not a byte is left."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


@pytest.mark.fault(
    "disk",
    "full",
    "local: a tmpfs of 4 MB is filled while two trials run",
    "✱ one message that says what to do, no traceback; with space again the same command goes on",
)
def test_full_while_trials_run(bed: Bed, small: Path, uninjured: Callable[..., Series]) -> None:
    expected = uninjured("x=range(4)")
    process = bed.start_sweep("x=range(4)", "do=hold")
    bed.until_waiting(2, process)
    filler = fill(small)
    bed.go()
    out, err = process.communicate(timeout=PATIENCE)
    until(lambda: not bed.left())
    assert "Traceback" not in out + err
    assert process.returncode == BAD_INPUT, out + err
    assert "cannot write the manifest" in err
    assert "free space on the disk, then run the same command again" in err
    filler.unlink()
    bed.sweep("x=range(4)", "do=hold")
    shutil.copytree(small / "work", bed.runs / "work")  # out of the namespace, to look at it
    bed.whole(expected)


@pytest.mark.fault(
    "disk", "full from the start", "local: a tmpfs without a free byte", "a message, and nothing is left"
)
def test_full_from_the_start(bed: Bed, small: Path) -> None:
    fill(small)
    out = bed.sweep("x=range(4)", code=BAD_INPUT)
    assert "Traceback" not in out
    assert "free" in out
    assert not (small / "work" / "manifest.db").exists()


@pytest.mark.fault("disk", "read-only", "local: the folder is remounted read-only", "a message; reading commands work")
def test_read_only(bed: Bed, small: Path) -> None:
    bed.sweep("x=range(2)")
    remount = [*bed.command[: bed.command.index("--preserve-credentials") + 1], "mount", "-o", "remount,ro", "none"]
    subprocess.run([*remount, str(bed.runs)], check=True, capture_output=True)
    out = bed.sweep("x=range(4)", code=BAD_INPUT)
    assert "cannot write" in out
    assert "Traceback" not in out
    assert "2 succeeded" in bed.run("status")


@pytest.mark.fault(
    "disk",
    "a damaged manifest",
    "local: cut in the middle; overwritten with random bytes",
    "✱ refused, with the command that brings the backup back; what had ended since runs again",
)
@pytest.mark.parametrize("harm", ["cut", "overwritten"])
def test_a_damaged_manifest(bed: Bed, uninjured: Callable[..., Series], harm: str) -> None:
    expected = uninjured("x=range(4)")
    bed.sweep("x=range(2)")
    bed.sweep("x=range(4)")
    manifest = bed.runs / "work" / "manifest.db"
    if harm == "cut":
        os.truncate(manifest, manifest.stat().st_size // 2 - 100)
    else:
        manifest.write_bytes(os.urandom(manifest.stat().st_size))
    damaged = manifest.read_bytes()
    out = bed.sweep("x=range(4)", code=BAD_INPUT)
    assert "the manifest is damaged" in out
    assert "Traceback" not in out
    assert manifest.read_bytes() == damaged
    (command,) = [line.partition("→ ")[2].partition(" brings it back")[0] for line in out.splitlines() if "→" in line]
    subprocess.run(command, shell=True, check=True)
    bed.sweep("x=range(4)")
    bed.whole(expected)
