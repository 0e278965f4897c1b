"""Which GPUs a local sweep may use, by a driver library that tells of the devices in a text file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Literal

import pynvml
import pytest

from orchestrator.errors import ResourceError
from orchestrator.executors import gpus
from orchestrator.model.sweep import Resources
from tests.nvml import FOUR, UUIDS, Driver

DIVIDED = [  # the second GPU is in MIG mode
    FOUR[0],
    "gpu GPU-eeee-1 NVIDIA_H100_80GB_HBM3 81559 10 - -",
    "mig MIG-eeee-1-3 MIG_3g.40gb 40448 1 - -",
    "mig MIG-ffff-1-4 MIG_3g.40gb 40448 1 - -",
]
CLAIM = """
import sys, time
from pathlib import Path
from orchestrator.executors import gpus
from orchestrator.model.sweep import Resources
from tests import nvml
claim = gpus.claim(Path(sys.argv[1]))
print(*claim.ids, flush=True)
time.sleep(600)
"""


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    return tmp_path / "locks"


@contextmanager
def claimed(locks: Path) -> Iterator[gpus.Claim]:
    claim = gpus.claim(locks)
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


def test_all_idle_gpus_are_claimed(driver: Driver, locks: Path) -> None:
    driver()
    with claimed(locks) as claim:
        assert (claim.ids, claim.left_out) == (("0", "1", "2", "3"), ())


def test_no_driver(driver: Driver, locks: Path) -> None:
    with claimed(locks) as claim:
        assert (claim.ids, claim.left_out) == ((), ())
    assert gpus.uuids(["0"]) == ()


def test_a_driver_without_devices(driver: Driver) -> None:
    driver([])
    assert gpus.listed() == ()


def test_the_driver_is_closed_after_each_look(driver: Driver) -> None:
    """A process that is forked later must not find it open."""
    driver()
    assert len(gpus.listed()) == 4
    with pytest.raises(pynvml.NVMLError):
        pynvml.nvmlDeviceGetCount()


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
        ("0,-1,1", ("0",)),
    ],
)
def test_visible_devices_are_honoured_in_their_order(
    driver: Driver, locks: Path, monkeypatch: pytest.MonkeyPatch, visible: str, ids: tuple[str, ...]
) -> None:
    driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with claimed(locks) as claim:
        assert claim.ids == ids


def test_busy_gpus_are_left_out_with_the_reason(driver: Driver, locks: Path) -> None:
    """Whoever only draws does not count, however much memory that takes: a desktop."""
    (zero, one, two, three) = FOUR
    here = os.getppid()
    name = Path(f"/proc/{here}/comm").read_text().strip()
    driver(
        [
            zero,
            one.replace("- -", f"{2**30},78 -"),
            two.replace("- -", f"{here} -"),
            three.replace(" 3 - -", " 812 - 99"),
        ]
    )
    with claimed(locks) as claim:
        assert claim.ids == ("0", "3")
        assert claim.left_out == (f"GPU 1 (in use by pid {2**30} and 1 more)", f"GPU 2 (in use by pid {here} ({name}))")
        assert len(claim.there) == 4


@pytest.mark.parametrize("visible", ["MIG-gone", "GPU-", "9,0", "none"])
def test_devices_that_are_not_there_are_refused(
    driver: Driver, locks: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    """CUDA would see none, and the trials would run on the CPU."""
    driver(FOUR[:2])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ResourceError, match=r"no GPU of this machine can be used; it has 0 \(GPU 0\), 1") as told:
        gpus.claim(locks)
    assert f"CUDA_VISIBLE_DEVICES={visible}" in str(told.value)


def test_what_cuda_ignores_is_told(driver: Driver, locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,9,1")
    with claimed(locks) as claim:
        assert claim.left_out == ("9,1 of CUDA_VISIBLE_DEVICES (9 is no device here, and CUDA ignores what follows)",)


def test_a_gpu_that_cannot_be_used_is_told_and_the_cpu_is_not_taken_instead(driver: Driver, locks: Path) -> None:
    divided = "gpu GPU-eeee-1 NVIDIA_H100_80GB_HBM3 81559 10 - - empty"
    driver([FOUR[0], divided])
    with claimed(locks) as claim:
        assert claim.left_out == ("GPU 1 (in MIG mode, and not divided)",)
    driver([divided])
    with pytest.raises(ResourceError, match=r"it has GPU 0 \(in MIG mode, and not divided\)"):
        gpus.claim(locks)


def test_a_driver_that_does_not_answer_is_no_machine_without_gpus(driver: Driver, locks: Path) -> None:
    driver(["broken"])
    with pytest.raises(ResourceError, match="the GPU driver does not answer"):
        gpus.claim(locks)
    assert gpus.uuids(["0"]) == ()


# ---------------------------------------------------------------- what trials ask for


def sizes(*amounts: float | Literal["auto"]) -> list[Resources]:
    return [Resources(gpus=amount) for amount in amounts]


def test_trials_wait_for_gpus_that_others_use(driver: Driver, locks: Path) -> None:
    busy = FOUR[1].replace("- -", "77 -")
    driver([FOUR[0], busy])
    with claimed(locks) as claim:
        assert [claim.short_of(sizes(amount)) for amount in ("auto", 1, 0.5, 0, 2)] == [False] * 4 + [True]
        driver([FOUR[0].replace("- -", "77 -"), busy])
        claim.retry()
        assert [claim.short_of(sizes(amount)) for amount in ("auto", 1, 0.5, 0, 2)] == [True] * 3 + [False, True]
        driver(FOUR)
        claim.retry()
        assert (claim.ids, claim.left_out) == (("0", "1", "2", "3"), ())
    assert not gpus.Claim().short_of(sizes("auto", 2)), "a machine without GPUs has the CPU"


def test_what_a_trial_could_never_get_is_refused(driver: Driver, locks: Path) -> None:
    driver(DIVIDED)
    with claimed(locks) as claim:
        claim.check(sizes("auto", 1, 0.5, 0))
        with pytest.raises(ResourceError, match="CUDA uses one MIG device a process: GPU 1 MIG 0, GPU 1 MIG 1"):
            claim.check(sizes("auto", 2))
    driver(FOUR[:2])
    with claimed(locks) as claim, pytest.raises(ResourceError, match="asks for 3 GPUs, and this machine has 2"):
        claim.check(sizes(3))


def test_a_second_process_gets_what_is_left(driver: Driver, locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with claimed(locks) as mine, another(locks) as other:
        assert mine.ids == ("1", "2")
        assert other.stdout is not None
        assert other.stdout.readline() == "\n", "both are taken"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with another(locks) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0 1\n"
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with claimed(locks) as mine:
            assert mine.ids == ("2", "3")
            assert mine.left_out == tuple(f"GPU {gpu} (another sweep, pid {other.pid})" for gpu in (0, 1))


def test_locks_go_with_a_process_that_is_killed(driver: Driver, locks: Path) -> None:
    driver()
    with another(locks) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0 1 2 3\n"
        other.kill()
        other.wait()
        with claimed(locks) as mine:
            assert mine.ids == ("0", "1", "2", "3")


def test_a_claim_is_released(driver: Driver, locks: Path) -> None:
    driver()
    for _ in range(2):
        with claimed(locks) as claim:
            assert len(claim.ids) == 4
            with claimed(locks) as second:
                assert second.ids == ()


def test_locks_are_open_to_all_users(driver: Driver, locks: Path) -> None:
    driver()
    before = os.umask(0o077)
    try:
        with claimed(locks):
            assert locks.stat().st_mode & 0o7777 == 0o1777
            assert {path.stat().st_mode & 0o777 for path in locks.iterdir()} == {0o644}
    finally:
        os.umask(before)


# ---------------------------------------------------------------- other users of the machine

AS_NOBODY = """
import ctypes, os, sys, time
from pathlib import Path
from orchestrator.executors import gpus
ctypes.CDLL("libnvidia-ml.so.1", mode=ctypes.RTLD_GLOBAL)  # while this process may still read it
os.setgid(65534)
os.setuid(65534)
claim = gpus.claim(Path(sys.argv[1]))
print(claim.ids, claim.left_out, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach, and where each can make files, as in /tmp."""
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    folder = Path(tempfile.mkdtemp(prefix="orchestrate-test-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def nobody(locks: Path) -> Iterator[str]:
    """Another user claims what is free, and keeps it: which GPUs he gets, and which not."""
    command = [sys.executable, "-c", AS_NOBODY, str(locks)]
    environment = {**os.environ, "FAKE_NVML": str(locks.parent / "devices")}
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


def seen(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Owner, mode and content of each file."""
    found = {path.name: (path.lstat(), path) for path in folder.iterdir() if path.is_file()}
    return {name: (file.st_uid, file.st_mode & 0o7777, path.read_bytes()) for name, (file, path) in found.items()}


@pytest.mark.fault("disk", "two users claim the same GPUs", "locks of either owner", "each GPU goes to one of them")
def test_users_exclude_each_other_whoever_made_the_locks(driver: Driver, public: Path, library: Path) -> None:
    locks, me = public / "locks", os.getpid()
    driver(FOUR[:1])
    shutil.copy(os.environ["FAKE_NVML"], public / "devices")
    with nobody(locks) as his:
        assert his == "('0',) ()"
        before = seen(locks)
        assert [(owner, mode) for owner, mode, _ in before.values()] == [(65534, 0o644)]
        with claimed(locks) as mine:
            assert mine.ids == ()
            assert mine.left_out[0].startswith("GPU 0 (another sweep, pid ")
    with claimed(locks) as mine, nobody(locks) as his:
        assert mine.ids == ("0",)
        assert his == f"() ('GPU 0 (another sweep, pid {me})',)", "not the pid of whoever had it before"
        assert seen(locks) == before, "his file is as it was"


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
@pytest.mark.fault(
    "disk", "another user has planted a GPU's lock", "a link, a pipe, a folder", "that GPU is left alone"
)
def test_a_planted_lock_touches_nothing_and_costs_one_gpu(
    driver: Driver, locks: Path, tmp_path: Path, kind: str
) -> None:
    driver(FOUR[:2])
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    victim.chmod(0o600)
    locks.mkdir()
    locks.chmod(0o1777)
    planted = locks / f"{UUIDS[0]}.lock"
    plant: dict[str, Callable[[], object]] = {
        "link": lambda: planted.symlink_to(victim),
        "dangling link": lambda: planted.symlink_to(tmp_path / "new"),
        "pipe": lambda: os.mkfifo(planted),
        "folder": planted.mkdir,
    }
    plant[kind]()
    with claimed(locks) as claim:
        assert claim.ids == ("1",)
        assert str(planted) in claim.left_out[0]
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("years of work", 0o600)
    assert not (tmp_path / "new").exists()


def test_a_lock_is_never_written(driver: Driver, locks: Path, tmp_path: Path) -> None:
    """It may be a second name of another file."""
    driver(FOUR[:1])
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    victim.chmod(0o600)
    locks.mkdir()
    (locks / f"{UUIDS[0]}.lock").hardlink_to(victim)
    with claimed(locks) as claim:
        assert claim.ids == ("0",)
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("years of work", 0o600)


def test_a_planted_folder_of_locks_is_refused(driver: Driver, locks: Path, tmp_path: Path) -> None:
    driver(FOUR[:1])
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    locks.symlink_to(home)
    with pytest.raises(ResourceError, match="mode 1777") as told:
        gpus.claim(locks)
    assert str(locks) in str(told.value)
    assert home.stat().st_mode & 0o7777 == 0o700
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1755])
def test_a_folder_of_locks_that_another_user_controls_is_refused(driver: Driver, public: Path, mode: int) -> None:
    driver(FOUR[:1])
    locks = public / "locks"
    locks.mkdir()
    locks.chmod(mode)
    os.chown(locks, 65534, 65534)
    with pytest.raises(ResourceError, match=f"user 65534 has made it with mode {mode:o}"):
        gpus.claim(locks)
    assert locks.stat().st_mode & 0o7777 == mode


def test_without_gpus_no_lock_is_looked_at(driver: Driver, locks: Path) -> None:
    locks.symlink_to("/nowhere")
    assert gpus.claim(locks).ids == ()


def test_a_process_can_use_one_mig_device() -> None:
    assert "CUDA uses one MIG device a process" in gpus.not_for_one_process(["MIG-a", "MIG-b"])
    assert gpus.not_for_one_process(["MIG-a"]) == gpus.not_for_one_process(["0", "GPU-b"]) == ""


def test_uuids(driver: Driver, locks: Path) -> None:
    driver()
    assert gpus.uuids(["2", "GPU-x"]) == ("GPU-cccc-2", "GPU-x")
    assert gpus.uuids(["2", "9"]) == ()
    assert gpus.uuids([]) == ()


# ---------------------------------------------------------------- MIG devices


def test_a_divided_gpu_is_its_mig_devices(driver: Driver, locks: Path) -> None:
    driver(DIVIDED)
    with claimed(locks) as claim:
        assert claim.ids == ("0", "MIG-eeee-1-3", "MIG-ffff-1-4")
    assert gpus.uuids(claim.ids) == ("GPU-aaaa-0", "MIG-eeee-1-3", "MIG-ffff-1-4")


def test_each_mig_device_has_a_lock_and_processes_of_its_own(driver: Driver, locks: Path) -> None:
    driver([*DIVIDED[:2], DIVIDED[2].replace("- -", f"{2**30} -"), DIVIDED[3]])
    with claimed(locks) as mine:
        assert mine.ids == ("0", "MIG-ffff-1-4")
        assert mine.left_out == (f"GPU 1 MIG 0 (in use by pid {2**30})",)
        with claimed(locks) as second:
            assert second.left_out[-1] == f"GPU 1 MIG 1 (another sweep, pid {os.getpid()})"


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        ("MIG-ffff-1-4,0", ("MIG-ffff-1-4", "0")),
        ("MIG-ffff", ("MIG-ffff",)),
        ("1", ("MIG-eeee-1-3",)),
        ("0,MIG-gone,MIG-ffff", ("0",)),
    ],
)
def test_visible_mig_devices_are_honoured(
    driver: Driver, locks: Path, monkeypatch: pytest.MonkeyPatch, visible: str, ids: tuple[str, ...]
) -> None:
    driver(DIVIDED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with claimed(locks) as claim:
        assert claim.ids == ids
