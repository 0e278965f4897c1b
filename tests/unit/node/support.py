"""Make orders, run attempts, and look at their events."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.model.events import Batch, Ended, Event, Filed, Logged, Noticed, Reported, Restored, Saved, Started
from orchestrator.model.order import Order
from orchestrator.model.sweep import SweepSpec, TrialSpec
from orchestrator.node.attempt import run_attempt
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared.placement import Placement
from orchestrator.node.watch.memory import NodeMemory

HERE = str(Path(__file__).parent)


def order(folder: Path, trainer: str, config: dict[str, Any] | None = None, **changes: Any) -> Order:
    """An order for `node_trainers:<trainer>` or for `module:function`, in a sweep's folder that the node sees."""
    sweep = folder / "sweep"
    sweep.mkdir(exist_ok=True)
    (sweep / "uid").write_text("uid-1")
    spec = SweepSpec(name="s", trainer=trainer if ":" in trainer else f"node_trainers:{trainer}", grace=30.0)
    plain = replace(
        Order.of(spec, TrialSpec("0123456789ab", config or {}, {}, 7, "")),
        sweep_uid="uid-1",
        import_path=(HERE,),
        cwd=HERE,
        folder=str(sweep / "trials" / "0123456789ab"),
        interval=0.05,
    )
    return replace(plain, **changes)


@dataclass
class Result:
    """The events of an attempt, by type."""

    batches: list[Batch]

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch.events]

    @property
    def started(self) -> Started:
        return next(event for event in self.events if isinstance(event, Started))

    @property
    def ended(self) -> Ended:
        assert isinstance(self.events[-1], Ended)
        return self.events[-1]

    @property
    def log(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, Logged)).decode()

    @property
    def rows(self) -> list[tuple[int, dict[str, Any]]]:
        rows = [row for event in self.events if isinstance(event, Reported) for row in event.rows]
        return [(step, json.loads(text)) for step, _, text in rows]

    @property
    def notices(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Noticed)]

    @property
    def saved(self) -> list[Saved]:
        return [event for event in self.events if isinstance(event, Saved)]

    @property
    def restored(self) -> list[int]:
        return [event.step for event in self.events if isinstance(event, Restored)]

    @property
    def filed(self) -> dict[str, bytes]:
        return {event.path: event.data for event in self.events if isinstance(event, Filed)}


def stream(
    wanted: Order,
    zygote_pool: ZygotePool,
    gpus: Sequence[str] = (),
    asked: Callable[[], str | None] = lambda: None,
    states: Mapping[str, bytes] | None = None,
    node_memory: NodeMemory | None = None,
    interval: Callable[[], float] | None = None,
) -> Iterator[Batch]:
    placement = Placement("here", gpus=tuple(gpus))
    return run_attempt(wanted, placement, asked, zygote_pool, states or {}, node_memory, interval)


def run(wanted: Order, zygote_pool: ZygotePool, **options: Any) -> Result:
    """Run an attempt to its end."""
    result = Result(list(stream(wanted, zygote_pool, **options)))
    assert [batch.seq for batch in result.batches] == list(range(len(result.batches)))
    assert sum(isinstance(event, Ended) for event in result.events) == 1
    return result


def file(wanted: Order, name: str) -> Any:
    """A JSON file that the trial left in `run.dir`."""
    return json.loads((Path(wanted.folder) / "files" / name).read_text())


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond this size; a write past it fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_exit(pid: int) -> None:
    """Wait, without polling, until a process that is not our child has exited."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([fd], [], [], 60)[0], f"process {pid} has not exited"
    os.close(fd)
