"""Attempts on this machine without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.executors.local import LocalExecutor
from orchestrator.model.sweep import Resources
from orchestrator.ports import Executor
from tests.executors.conformance import SIZE, Bench, Conformance


class TestLocalExecutor(Conformance):
    capacity, ahead = 2, 0

    @pytest.fixture(scope="class")
    @classmethod
    def factory(cls) -> Callable[[], Executor]:
        return lambda: LocalExecutor(cpus=2, gpus=("0", "1"))


def test_no_process_is_left_when_closing_returns(tmp_path: Path) -> None:
    bench = Bench(lambda: LocalExecutor(cpus=2, gpus=("0", "1")), tmp_path)
    bench.ended(bench.launch())
    bench.until_holding(bench.launch("ignore"))
    bench.close()
    assert bench.processes() == []


def test_what_waits_starts_in_its_order_as_room_comes(tmp_path: Path) -> None:
    """A large one is not overtaken by small ones behind it."""
    bench = Bench(lambda: LocalExecutor(cpus=2, gpus=("0", "1")), tmp_path)
    first = bench.launch("hold")
    bench.until_holding(first)
    both = bench.launch("hold", Resources(gpus=2, cpus=1))
    small = bench.launch("hold")
    assert not bench.executor.free(SIZE)
    bench.executor.stop(*first, "cancelled")
    bench.until_holding(both)
    assert bench.events(small) == []
    assert bench.started(both).gpus == ("0", "1")
    bench.settle()
    bench.close()


def test_an_attempt_that_needs_the_machine_to_itself_gets_all_cpus() -> None:
    executor = LocalExecutor(cpus=3, gpus=("0",))
    assert executor.resolve(Resources(gpus=0, cpus=1, alone="node")).cpus == 3.0
    assert executor.resolve(Resources(gpus=0.25, cpus=1, alone="gpu")).gpus == 1.0
    executor.close()


def test_a_machine_without_gpus(tmp_path: Path) -> None:
    bench = Bench(lambda: LocalExecutor(cpus=1), tmp_path)
    assert bench.executor.resolve(Resources()) == Resources(gpus=0.0, cpus=1.0)
    key = bench.launch(size=Resources())
    bench.ended(key)
    assert bench.log(key) == ["gpus "]
    bench.settle()
    bench.close()


def test_an_attempt_whose_supervisor_fails_is_lost(tmp_path: Path) -> None:
    bench = Bench(lambda: LocalExecutor(cpus=1), tmp_path)
    ended = bench.ended(bench.launch(size=Resources(), config={"cannot be pickled": lambda: None}))
    assert (ended.lost, ended.exit_code) == ("worker", None)
    assert "pickle" in ended.detail
    assert bench.ended(bench.launch(size=Resources())).exit_code == 0
    bench.settle()
    bench.close()
