"""What every executor keeps to. A test class for one inherits from `Conformance` and says how to make it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.decide.lifecycle import classify
from orchestrator.errors import ResourceError
from orchestrator.model.events import Batch, Ended, Event, Logged, Reported, Started
from orchestrator.model.order import Order
from orchestrator.model.sweep import Resources, State, SweepSpec, TrialSpec
from orchestrator.ports import Executor

PATIENCE = 120.0  # seconds until an event that does not come is a failure
SIZE = Resources(gpus=1.0, cpus=1.0)
Key = tuple[str, int]

TRAINER = """
import os, signal, subprocess, sys, time

SLEEPER = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def train(cfg, run):
    print("gpus", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    run.report({"loss": 0.5})
    if cfg.do == "fail":
        raise ValueError("as it was told")
    if cfg.do == "exit":
        os._exit(3)
    if cfg.do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if cfg.do == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", SLEEPER])
    if cfg.do in ("hold", "ignore"):
        print("holding", flush=True)
        while not os.path.exists(cfg.go):
            time.sleep(0.01)
"""


@dataclass
class Bench:
    """An executor, made when it is needed, and what became of the attempts that were launched on it."""

    make: Callable[[], Executor]
    root: Path  # the project of all trials
    batches: dict[Key, list[Batch]] = field(default_factory=dict)
    count: int = 0
    _executor: Executor | None = None

    def __post_init__(self) -> None:
        (self.root / "conforming.py").write_text(TRAINER)
        (self.root / "sweep").mkdir()
        (self.root / "sweep" / "uid").write_text("uid-1")

    @property
    def executor(self) -> Executor:
        self._executor = self._executor or self.make()
        return self._executor

    @property
    def go(self) -> Path:
        """Trials that hold go on when this exists."""
        return self.root / "go"

    def launch(self, do: str = "", size: Resources = SIZE, **changes: Any) -> Key:
        self.count += 1
        trial = TrialSpec(f"{self.count:012x}", {"do": do, "go": str(self.go)}, {}, 1, "")
        order = replace(
            Order.of(SweepSpec("s", "conforming:train", grace=60.0), trial),
            sweep_uid="uid-1",
            import_path=(str(self.root),),
            cwd=str(self.root),
            folder=str(self.root / "sweep" / "trials" / trial.trial_id),
            interval=0.05,
        )
        order = replace(order, **changes)
        key = (trial.trial_id, order.attempt)
        self.batches[key] = []
        self.executor.launch(order, size)
        return key

    def poll(self) -> None:
        for batch in self.executor.poll(0.1):
            self.batches[batch.trial_id, batch.attempt].append(batch)

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not come"
            self.poll()

    def events(self, key: Key) -> list[Event]:
        return [event for batch in self.batches[key] for event in batch.events]

    def log(self, key: Key) -> list[str]:
        return b"".join(event.data for event in self.events(key) if isinstance(event, Logged)).decode().splitlines()

    def ends(self, key: Key) -> list[Ended]:
        return [event for event in self.events(key) if isinstance(event, Ended)]

    def started(self, key: Key) -> Started:
        (found,) = [event for event in self.events(key) if isinstance(event, Started)]
        return found

    def until_holding(self, *keys: Key) -> None:
        self.until(lambda: all("holding" in self.log(key) for key in keys))

    def ended(self, key: Key) -> Ended:
        """Wait for the attempt's end."""
        self.until(lambda: self.ends(key))
        return self.ends(key)[0]

    def settle(self) -> None:
        """Let everything end, and look at all of it: one end for each launch, and nothing after it."""
        self.go.touch()
        for key in self.batches:
            self.ended(key)
        if self.batches:
            self.poll()
        for key, batches in self.batches.items():
            assert [batch.seq for batch in batches] == list(range(len(batches))), key
            assert len(self.ends(key)) == 1
            assert isinstance(self.events(key)[-1], Ended)
        self.batches.clear()
        self.go.unlink()

    def close(self) -> None:
        """The next test gets a new executor."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def processes(self, command: str = "") -> list[int]:
        """Living processes that work in the project's folder: trials, what they started, and their zygotes.

        `command`: only those with this in their command line.
        """
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                here = os.readlink(f"/proc/{name}/cwd") == str(self.root)
                if here and state not in "ZX" and command in Path(f"/proc/{name}/cmdline").read_text():
                    found.append(int(name))
        return found


class Conformance:
    """The tests. A subclass has a fixture `factory` that gives a function to make an executor."""

    capacity: int  # how often SIZE fits on it: it has as many GPUs, and as many cpus
    ahead: int  # how many more it wants to be launched than run

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, factory: Callable[[], Executor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
        bench = Bench(factory, tmp_path_factory.mktemp("conformance"))
        yield bench
        bench.close()

    @pytest.fixture
    def bench(self, shared: Bench) -> Iterator[Bench]:
        yield shared
        shared.settle()

    # ------------------------------------------------------------ sizes

    def test_auto_becomes_numbers(self, bench: Bench) -> None:
        assert bench.executor.resolve(Resources()) == SIZE
        assert bench.executor.resolve(Resources(gpus=0.5)) == Resources(gpus=0.5, cpus=0.5)
        assert bench.executor.resolve(Resources(gpus=0)) == Resources(gpus=0, cpus=1.0)
        assert bench.executor.resolve(Resources(gpus=2, cpus=1.5)) == Resources(gpus=2, cpus=1.5)

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            (Resources(gpus=99), "GPU 99"),
            (Resources(gpus=0, cpus=99), "CPU 99"),
            (Resources(gpus=0, cpus=1, memory=2**60), "memory"),
            (Resources(gpus=0, cpus=1, custom={"unheard": 1}), "unheard 1"),
            (Resources(gpus=0, cpus=1, labels={"zone": "nowhere"}), "with labels {'zone': 'nowhere'}"),
        ],
    )
    def test_what_can_never_run_is_refused(self, bench: Bench, size: Resources, words: str) -> None:
        with pytest.raises(ResourceError, match=r"^sweep\.resources: a trial asks for .* and no node has") as error:
            bench.executor.check(size)
        assert words in str(error.value)
        for fitting in (Resources(), SIZE, Resources(gpus=2, cpus=2), Resources(gpus=0.25, cpus=0.1)):
            bench.executor.check(fitting)  # raises if it does not fit

    def test_there_is_room_until_it_is_full(self, bench: Bench) -> None:
        at_most = self.capacity + self.ahead
        bench.until(lambda: not bench.executor.free(SIZE, [SIZE] * at_most))  # ends of late may count for a moment
        assert bench.executor.free(SIZE, [SIZE] * (at_most - 1))
        keys = [bench.launch("hold") for _ in range(at_most - 1)]
        assert bench.executor.free(SIZE)
        assert not bench.executor.free(SIZE, [SIZE])
        keys.append(bench.launch("hold"))
        assert not bench.executor.free(SIZE)
        bench.until_holding(*keys[: self.capacity])
        assert not bench.executor.free(SIZE)
        bench.executor.stop(*keys[0], "cancelled")
        bench.ended(keys[0])
        assert bench.executor.free(SIZE)

    # ------------------------------------------------------------ ends

    def test_a_success_from_start_to_end(self, bench: Bench) -> None:
        key = bench.launch()
        assert bench.ended(key).exit_code == 0
        events = bench.events(key)
        assert isinstance(events[0], Started)
        assert [row[2] for event in events if isinstance(event, Reported) for row in event.rows] == ['{"loss":0.5}']
        assert bench.started(key).threads == 1

    @pytest.mark.parametrize(
        ("do", "cause", "message"),
        [
            ("fail", "exception", "ValueError: as it was told"),
            ("exit", "exit", "the process ended with exit code 3"),
            ("crash", "signal", "killed by SIGSEGV"),
        ],
    )
    def test_a_failure_says_how_it_came(self, bench: Bench, do: str, cause: str, message: str) -> None:
        outcome = classify(bench.ended(bench.launch(do)))
        assert (outcome.state, outcome.cause, outcome.message) == (State.FAILED, cause, message)

    def test_more_than_there_is_room_for_run_one_after_another(self, bench: Bench) -> None:
        keys = [bench.launch() for _ in range(2 * self.capacity + 1)]
        assert [bench.ended(key).exit_code for key in keys] == [0] * len(keys)

    # ------------------------------------------------------------ stopping

    def test_a_running_attempt_is_asked_to_end_and_the_first_reason_counts(self, bench: Bench) -> None:
        key = bench.launch("hold")
        bench.until_holding(key)
        bench.executor.stop(*key, "stopped")
        bench.executor.stop(*key, "cancelled")
        ended = bench.ended(key)
        assert (ended.asked, ended.exit_code) == ("stopped", 128 + 15)

    def test_one_that_ignores_this_is_killed_after_its_grace_with_all_it_started(self, bench: Bench) -> None:
        key = bench.launch("ignore", grace=0.1)
        bench.until_holding(key)
        assert len(bench.processes("SIG_IGN")) == 1
        bench.executor.stop(*key, "cancelled")
        ended = bench.ended(key)
        assert (ended.asked, ended.signal) == ("cancelled", 9)
        assert bench.processes("SIG_IGN") == []

    @pytest.mark.parametrize("cpus", [1.0, 0.5], ids=["of the size that runs", "of another size"])
    def test_one_that_waits_never_starts(self, bench: Bench, cpus: float) -> None:
        holding = [bench.launch("hold") for _ in range(self.capacity)]
        bench.until_holding(*holding)
        waiting = [bench.launch("hold", replace(SIZE, cpus=cpus)) for _ in range(2)]
        for key in waiting:
            bench.executor.stop(*key, "cancelled")
            bench.executor.stop(*key, "cancelled")
        for key in waiting:
            assert classify(bench.ended(key)).state is State.CANCELLED
            assert [type(event) for event in bench.events(key)] == [Ended]
        assert [bench.ends(key) for key in holding] == [[]] * self.capacity

    def test_one_that_is_not_there_is_passed_over(self, bench: Bench) -> None:
        over = bench.launch()
        bench.ended(over)
        bench.executor.stop(*over, "cancelled")
        bench.executor.stop(over[0], 2, "cancelled")
        bench.executor.stop("f" * 12, 1, "cancelled")
        assert bench.ended(bench.launch()).exit_code == 0
        assert len(bench.ends(over)) == 1

    def test_killing_ends_all_at_once(self, bench: Bench) -> None:
        running = [bench.launch(do) for do in ("hold", "ignore")[: self.capacity]]
        bench.until_holding(*running)
        waiting = [bench.launch("hold") for _ in range(self.capacity)]
        bench.executor.kill()
        states = {classify(bench.ended(key)).state for key in (*running, *waiting)}
        assert states <= {State.CANCELLED, State.LOST}
        assert [[type(event) for event in bench.events(key)] for key in waiting] == [[Ended]] * self.capacity
        assert bench.ended(bench.launch()).exit_code == 0, "what is launched afterwards runs"

    def test_closing_leaves_no_process(self, bench: Bench) -> None:
        running = [bench.launch(do) for do in ("hold", "ignore")]
        bench.until_holding(*running)
        for _ in range(self.capacity):
            bench.launch("hold")
        assert bench.processes()
        bench.close()
        bench.batches.clear()
        deadline = time.monotonic() + PATIENCE
        while bench.processes():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    # ------------------------------------------------------------ GPUs

    def test_each_attempt_sees_the_gpus_that_it_holds(self, bench: Bench) -> None:
        keys = [bench.launch("hold") for _ in range(self.capacity)]
        bench.until_holding(*keys)
        held = [(started.node_id, *started.gpus) for started in map(bench.started, keys)]
        assert {len(place) for place in held} == {2}
        assert len(set(held)) == self.capacity
        for key in keys:
            assert bench.log(key)[0] == f"gpus {bench.started(key).gpus[0]}"

    def test_several_gpus_or_none(self, bench: Bench) -> None:
        two, none = bench.launch("", Resources(gpus=2, cpus=1)), bench.launch("", Resources(gpus=0, cpus=1))
        for key, count in ((two, 2), (none, 0)):
            bench.ended(key)
            gpus = bench.started(key).gpus
            assert len(set(gpus)) == count
            assert bench.log(key) == [f"gpus {','.join(gpus)}"]

    def test_a_part_of_a_gpu(self, bench: Bench) -> None:
        half = Resources(gpus=0.5, cpus=0.5)
        keys = [bench.launch("hold", half) for _ in range(2 * self.capacity)]
        bench.until_holding(*keys)
        held = [(started.node_id, *started.gpus) for started in map(bench.started, keys)]
        assert sorted(held) == sorted(2 * sorted(set(held)))
        assert len(set(held)) == self.capacity
        assert not bench.executor.free(half, [half] * (2 * self.ahead))
