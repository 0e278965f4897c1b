"""Which trial is ended when a node's memory runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.watch.memory import MemoryWatch, NodeMemory, Room
from tests.unit.node.support import order, run

MB = 2**20


class FakeMemory(NodeMemory):
    """A node of 1000 MB, of which `free` are left. Without `used`, what the trial uses is measured."""

    def __init__(self, free: int = 1000 * MB, used: int | None = None, kills: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.free, self.used, self._kills = free, used, list(kills)

    def room(self) -> Room:
        return Room(1000 * MB, self.free)

    def used_below(self, pid: int) -> int:
        return super().used_below(pid) if self.used is None else self.used

    def oom_kills(self) -> int:
        return self._kills.pop(0) if len(self._kills) > 1 else self._kills[0]


@pytest.fixture(autouse=True)
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where supervisors write what their trials use."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"orchestrate-{os.getuid()}" / "memory"


def room_of(root: Path, cgroup: str, groups: dict[str, str]) -> Room:
    """The room of a node of 1000 kB, of which 500 are free, with these control groups."""
    for name, text in {
        "proc/meminfo": "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  500 kB\n",
        "proc/self/cgroup": cgroup,
        **{f"cgroup/{name}": text for name, text in groups.items()},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return NodeMemory(root / "proc", root / "cgroup").room()


def test_room_without_a_limited_control_group_is_the_nodes(tmp_path: Path) -> None:
    assert room_of(tmp_path, "0::/\n", {}) == Room(1000 * 1024, 500 * 1024)
    assert room_of(tmp_path, "0::/a\n", {"a/memory.max": "max", "a/memory.current": "1"}).of == "this node"


def test_room_is_that_of_the_tightest_control_group(tmp_path: Path) -> None:
    """A parent group may have less room than its child. Cached files do not count as used."""
    groups = {
        "a/memory.max": "100000",
        "a/memory.current": "90000",
        "a/memory.stat": "anon 1\ninactive_file 30000\nactive_file 10000\n",
        "a/b/memory.max": "90000",
        "a/b/memory.current": "100",
    }
    assert room_of(tmp_path, "0::/a/b\n", groups) == Room(100000, 50000, "its control group")
    version_1 = {"memory/a/memory.limit_in_bytes": "1000", "memory/a/memory.usage_in_bytes": "600"}
    assert room_of(tmp_path, "3:cpu:/a\n4:memory:/a\n", version_1) == Room(1000, 400, "its control group")


def test_this_nodes_memory_can_be_read() -> None:
    memory = NodeMemory()
    room = memory.room()
    assert 0 < room.free <= room.total
    assert memory.oom_kills() >= 0


def test_nothing_is_measured_while_there_is_room(published: Path) -> None:
    watch = MemoryWatch(FakeMemory())
    assert watch.must_end(0.0) is None, "no trial has started yet"
    watch.begin(os.getpid())
    assert watch.must_end(0.0) is None
    assert not published.exists()


def test_the_largest_trial_is_ended_in_the_second_round(published: Path) -> None:
    """After the first round, each supervisor knows what the other trials use."""
    node = FakeMemory(free=10 * MB, used=300 * MB)
    watch = MemoryWatch(node)
    watch.begin(os.getpid())
    assert watch.must_end(0.0) is None
    assert watch.must_end(0.1) is None, "the next look is not due"
    assert watch.must_end(1.0) == (
        "its processes held 0.3 GiB, the most of 1 trial here, when 0.0 GiB of the 1.0 GiB of this node were free"
    )
    (published / "1").write_text(str(400 * MB))
    assert watch.must_end(2.0) is None, "another trial uses more"
    os.utime(published / "1", (1.0, 1.0))
    assert watch.must_end(3.0) is not None, "the other trial's file is too old"
    assert not (published / "1").exists()
    (published / "1").write_text(str(400 * MB))
    os.utime(published / "1", (2**32, 2**32))
    assert watch.must_end(4.0) is not None, "it is from before the clock was set back"
    watch.close()
    assert list(published.iterdir()) == []


def test_no_trial_is_ended_where_trials_cannot_be_compared(published: Path) -> None:
    """Another user has taken the name of the folder where each trial says what it uses."""
    published.parent.symlink_to("/")
    watch = MemoryWatch(FakeMemory(free=10 * MB, used=300 * MB))
    watch.begin(os.getpid())
    assert [watch.must_end(now) for now in (0.0, 1.0, 2.0)] == [None, None, None]
    watch.close()


def test_a_trial_that_uses_less_than_the_reserve_is_not_ended() -> None:
    watch = MemoryWatch(FakeMemory(free=10 * MB, used=20 * MB))
    watch.begin(os.getpid())
    assert [watch.must_end(now) for now in (0.0, 1.0, 2.0)] == [None, None, None]


def test_a_trial_that_exhausts_its_node_is_killed(tmp_path: Path, published: Path) -> None:
    zygote_pool = ZygotePool()
    wanted = order(tmp_path, "uses_memory", {"size": 100 * MB})
    result = run(wanted, zygote_pool, node_memory=FakeMemory(free=10 * MB))
    zygote_pool.close()
    assert (result.ended.asked, result.ended.signal) == ("oom", signal.SIGKILL)
    assert "its processes held 0.1 GiB" in result.ended.detail
    assert list(published.iterdir()) == []


def test_a_kill_by_the_kernel_for_memory_is_recognised_by_the_kernels_count(tmp_path: Path) -> None:
    zygote_pool = ZygotePool()
    wanted = order(tmp_path, "crashes", {"signal": 9})
    ended = run(wanted, zygote_pool, node_memory=FakeMemory(kills=(3, 4))).ended
    zygote_pool.close()
    assert ended.oom
    assert "the kernel killed 1 process(es)" in ended.detail
