"""Which GPUs a local sweep may use, with a driver that says what the test wants."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.executors import gpus

FOUR = [(str(index), f"GPU-{letter * 4}-{index}", "3") for index, letter in enumerate("abcd")]
CLAIM = """
import sys, time
from pathlib import Path
from orchestrator.executors import gpus
gpus.LOCKS = Path(sys.argv[1])
claim = gpus.claim()
print(*claim.ids, flush=True)
time.sleep(600)
"""

Driver = Callable[..., None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Sets what `nvidia-smi` prints: (index, uuid, MiB in use) of each GPU, and {uuid: pid} of what computes."""
    binary = tmp_path / "bin" / "nvidia-smi"
    binary.parent.mkdir()
    monkeypatch.setenv("PATH", f"{binary.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "LOCKS", tmp_path / "locks")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(found: list[tuple[str, ...]] = FOUR, computing: dict[str, int] | None = None, code: int = 0) -> None:
        listed = "\n".join(", ".join(row) for row in found)
        apps = "\n".join(f"{uuid}, {pid}" for uuid, pid in (computing or {}).items())
        (tmp_path / "gpus").write_text(listed + "\n")
        (tmp_path / "apps").write_text(apps + "\n")
        choose = f'case "$1" in *compute-apps*) cat {tmp_path}/apps;; *) cat {tmp_path}/gpus;; esac'
        binary.write_text(f"#!/bin/sh\n{choose}\nexit {code}\n")
        binary.chmod(0o755)
        gpus.listed.cache_clear()

    yield install
    gpus.listed.cache_clear()


@contextmanager
def claimed() -> Iterator[gpus.Claim]:
    claim = gpus.claim()
    try:
        yield claim
    finally:
        claim.release()


@contextmanager
def another(locks: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that claims what is free, and keeps it."""
    command = [sys.executable, "-c", CLAIM, str(locks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_all_idle_gpus_are_claimed(driver: Driver) -> None:
    driver()
    with claimed() as claim:
        assert (claim.ids, claim.left_out) == (("0", "1", "2", "3"), ())


def test_no_driver(driver: Driver) -> None:
    with claimed() as claim:
        assert (claim.ids, claim.left_out) == ((), ())
    assert gpus.uuids(["0"]) == ()


@pytest.mark.parametrize("printed", [[("No devices were found",)], [()], [("Failed to initialize NVML", "x")]])
def test_a_driver_without_devices(driver: Driver, printed: list[tuple[str, ...]]) -> None:
    driver(printed)
    assert gpus.listed() == ()


def test_a_driver_that_fails(driver: Driver) -> None:
    driver(code=9)
    assert gpus.listed() == ()


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        ("", ()),
        ("1", ("1",)),
        ("3,1", ("3", "1")),
        (" 2 , 0 ", ("2", "0")),
        ("GPU-cccc", ("GPU-cccc",)),
        ("GPU-dddd-3,0", ("GPU-dddd-3", "0")),
        ("0,9,1", ("0",)),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("GPU-", ()),
    ],
)
def test_visible_devices_are_honoured_in_their_order(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str, ids: tuple[str, ...]
) -> None:
    driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with claimed() as claim:
        assert claim.ids == ids


def test_busy_gpus_are_left_out_with_the_reason(driver: Driver) -> None:
    (zero, one, two, three) = FOUR
    driver([zero, one, (*two[:2], "9000"), (*three[:2], "[N/A]")], computing={one[1]: 77})
    with claimed() as claim:
        assert claim.ids == ("0", "3")
        assert claim.left_out == ("GPU 1 (in use by pid 77)", "GPU 2 (9000 MiB in use)")


def test_a_second_process_gets_what_is_left(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with claimed() as mine, another(gpus.LOCKS) as other:
        assert mine.ids == ("1", "2")
        assert other.stdout is not None
        assert other.stdout.readline() == "\n", "both are taken"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with another(gpus.LOCKS) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0 1\n"
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with claimed() as mine:
            assert mine.ids == ("2", "3")
            assert mine.left_out == tuple(f"GPU {gpu} (another sweep, pid {other.pid})" for gpu in (0, 1))


def test_locks_go_with_a_process_that_is_killed(driver: Driver) -> None:
    driver()
    with another(gpus.LOCKS) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0 1 2 3\n"
        other.kill()
        other.wait()
        with claimed() as mine:
            assert mine.ids == ("0", "1", "2", "3")


def test_a_claim_is_released(driver: Driver) -> None:
    driver()
    for _ in range(2):
        with claimed() as claim:
            assert len(claim.ids) == 4
            with claimed() as second:
                assert second.ids == ()


def test_locks_are_open_to_all_users(driver: Driver) -> None:
    driver()
    before = os.umask(0o077)
    try:
        with claimed():
            assert gpus.LOCKS.stat().st_mode & 0o7777 == 0o1777
            assert {path.stat().st_mode & 0o777 for path in gpus.LOCKS.iterdir()} == {0o644}
    finally:
        os.umask(before)


def test_the_lock_of_a_colleague_excludes_too(driver: Driver) -> None:
    """His file cannot be written, and it can be locked all the same."""
    driver([FOUR[0]])
    with claimed():
        pass
    (file,) = gpus.LOCKS.iterdir()
    file.chmod(0o444)
    with claimed() as mine:
        assert mine.ids == ("0",)
        with claimed() as second:
            assert second.ids == ()


def test_uuids(driver: Driver) -> None:
    driver()
    assert gpus.uuids(["2", "GPU-x"]) == ("GPU-cccc-2", "GPU-x")
    assert gpus.uuids(["2", "9"]) == ()
    assert gpus.uuids([]) == ()
