"""Who has to go when a node's memory runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.watch import memory
from orchestrator.node.watch.memory import MemoryWatch, Room, room
from tests.unit.node.support import order, run

MB = 2**20


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the trials of this node meet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"orchestrate-{os.getuid()}" / "memory"


def fake(root: Path, cgroup: str, groups: dict[str, str]) -> Room:
    """The room in a node of 1000 kB, 500 of them free, with these control groups."""
    for name, text in {
        "proc/meminfo": "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  500 kB\n",
        "proc/self/cgroup": cgroup,
        **{f"cgroup/{name}": text for name, text in groups.items()},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return room(root / "proc", root / "cgroup")


def test_the_room_of_a_node(tmp_path: Path) -> None:
    assert fake(tmp_path, "0::/\n", {}) == Room(1000 * 1024, 500 * 1024)
    assert fake(tmp_path, "0::/a\n", {"a/memory.max": "max", "a/memory.current": "1"}).of == "this node"


def test_the_room_of_a_control_group(tmp_path: Path) -> None:
    """Its parent may be the tighter one; cached files do not count."""
    groups = {
        "a/memory.max": "100000",
        "a/memory.current": "90000",
        "a/memory.stat": "anon 1\ninactive_file 30000\nactive_file 10000\n",
        "a/b/memory.max": "90000",
        "a/b/memory.current": "100",
    }
    assert fake(tmp_path, "0::/a/b\n", groups) == Room(100000, 50000, "its control group")
    old = {"memory/a/memory.limit_in_bytes": "1000", "memory/a/memory.usage_in_bytes": "600"}
    assert fake(tmp_path, "3:cpu:/a\n4:memory:/a\n", old) == Room(1000, 400, "its control group")


def test_this_node_has_room() -> None:
    here = room()
    assert 0 < here.free <= here.total
    assert memory.oom_kills() >= 0


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A node of 1000 MB, of which `free` are left, and on which the trial holds `mine`."""
    state = {"free": 1000 * MB, "mine": 300 * MB}
    monkeypatch.setattr(memory, "room", lambda: Room(1000 * MB, state["free"]))
    monkeypatch.setattr(memory, "held", lambda zygote: state["mine"])
    return state


def test_nothing_is_measured_while_there_is_room(node: dict[str, int], temporary: Path) -> None:
    watch = MemoryWatch()
    assert watch.guilty(0.0) is None, "nothing runs yet"
    watch.begin(os.getpid())
    assert watch.guilty(0.0) is None
    assert not temporary.exists()


def test_the_largest_goes_after_the_others_had_time_to_speak(node: dict[str, int], temporary: Path) -> None:
    watch = MemoryWatch()
    watch.begin(os.getpid())
    node["free"] = 10 * MB
    assert watch.guilty(0.0) is None
    assert watch.guilty(0.1) is None, "not due"
    evidence = watch.guilty(1.0)
    assert evidence is not None
    assert evidence == (
        "its processes held 0.3 GiB, the most of 1 trial(s) here, when 0.0 GiB of the 1.0 GiB of this node were free"
    )
    (temporary / "1").write_text(str(400 * MB))
    assert watch.guilty(2.0) is None, "another one holds more"
    os.utime(temporary / "1", (1.0, 1.0))
    assert watch.guilty(3.0) is not None, "it is long gone"
    assert not (temporary / "1").exists()
    watch.close()
    assert list(temporary.iterdir()) == []


def test_a_small_trial_is_not_to_blame(node: dict[str, int]) -> None:
    watch = MemoryWatch()
    watch.begin(os.getpid())
    node.update(free=10 * MB, mine=20 * MB)
    assert [watch.guilty(now) for now in (0.0, 1.0, 2.0)] == [None, None, None]


def test_a_trial_that_would_exhaust_its_node_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "room", lambda: Room(1000 * MB, 10 * MB))
    zygote_pool = ZygotePool()
    result = run(order(tmp_path, "hoards", {"size": 100 * MB}), zygote_pool)
    zygote_pool.close()
    assert (result.ended.asked, result.ended.signal) == ("oom", signal.SIGKILL)
    assert "its processes held 0.1 GiB" in result.ended.detail
    assert list((tmp_path / f"orchestrate-{os.getuid()}" / "memory").iterdir()) == []


def test_a_kill_by_the_kernel_is_told_by_its_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((3, 4))
    monkeypatch.setattr(memory, "oom_kills", lambda: next(counts))
    zygote_pool = ZygotePool()
    ended = run(order(tmp_path, "crashes", {"signal": 9}), zygote_pool).ended
    zygote_pool.close()
    assert ended.oom
    assert "the kernel killed 1 process(es)" in ended.detail
