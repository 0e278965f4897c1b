"""Growth: what the coordinator spends on a no-op trial, and what it keeps of it, at 1,000, 10,000 and 100,000 trials.

The executor is in this process and ends a trial as soon as it is launched, 64 at a time; decisions are committed to
disk as always. Cost: CPU time of the whole run by its trials. Memory: what the process has grown by, per trial.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import children
from bench import ROOT, Options, Row, alternate, check, main, median, query, scratch

from orchestrator.coordinator.loop import Coordinator
from orchestrator.folder.paths import create_folder
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Batch, Ended, Started
from orchestrator.model.order import Order
from orchestrator.model.sweep import Resources, SweepSpec, TrialSpec

SLOTS = 64


class AtOnce:
    """Every attempt has ended when it is looked at."""

    def __init__(self) -> None:
        self._orders: deque[Order] = deque()

    def resolve(self, resources: Resources) -> Resources:
        return resources

    def check(self, resources: Resources) -> None:
        """Everything fits."""

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        return len(self._orders) + len(opened) < SLOTS

    def launch(self, order: Order, resources: Resources) -> None:
        self._orders.append(order)

    def poll(self, timeout: float) -> list[Batch]:
        now = time.time()
        events = (
            Started(now, "here", "", 1, (), (), 1, "fork"),
            Ended(now, exit_code=0, entered=now, left=now, left_code=0),
        )
        batches = [Batch(order.trial_id, order.attempt, 0, events) for order in self._orders]
        self._orders.clear()
        return batches

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        """Nothing runs."""

    def kill(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is held."""


def drive(root: Path, trials: int) -> None:
    """In a process of its own: prints seconds of CPU a trial, and bytes at the end."""
    folder = create_folder(root, "s")
    manifest = Manifest.open(folder)
    spec = SweepSpec("s", "a:b")
    specs = (
        TrialSpec(f"{number:012x}", {"x": number}, {"x": number}, 1, "c", {}, Resources(0, 1))
        for number in range(trials)
    )
    with manifest.transaction():
        number = manifest.plans.begin(spec, "", [], {}, "", "")
        manifest.plans.finish(number, manifest.plans.add_trials(number, specs), 0, 0)
    plan = manifest.plans.current()
    assert plan is not None
    coordinator = Coordinator(manifest, AtOnce(), plan, [])
    before = time.process_time()
    coordinator.run(lambda _: None)
    spent = time.process_time() - before
    manifest.close()
    print(spent / trials, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def ours(trials: int) -> tuple[float, float]:
    with scratch() as root:
        command = [sys.executable, __file__, "drive", str(root), str(trials)]
        out = children.output(command, env={"PYTHONPATH": str(ROOT)})
        states = query(root / "s", "SELECT state, count(*), max(attempts) FROM trials GROUP BY 1")
        check(states == [("SUCCEEDED", trials, 1)], str(states))
        seconds, size = map(float, out.split())
        return seconds, size


def measure(options: Options) -> list[Row]:
    small, large = (100, 1_000) if options.quick else (1_000, 100_000)
    sizes = [small, small * 10] if options.quick else [small, small * 10, large]
    found = alternate(options, {str(size): lambda size=size: ours(size) for size in sizes})
    costs = {size: 1e6 * median(seconds for seconds, _ in found[str(size)]) for size in sizes}
    first, last = costs[small], costs[large]
    bytes_ = [median(held for _, held in found[str(size)]) for size in (small, large)]
    grown = (bytes_[1] - bytes_[0]) / (large - small)
    rows = [
        Row(f"coordinator, a trial of {size:,}", costs[size], "µs", "", None, first, f"(of {small:,})",
            "limit ≤ 1.3×" if size == large else "", last <= 1.3 * first if size == large else None)
        for size in sizes
    ]  # fmt: skip
    return [*rows, Row("coordinator, memory a trial", max(grown, 0), "B", goal="< 200 B", met=grown < 200)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:
        drive(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(measure)
