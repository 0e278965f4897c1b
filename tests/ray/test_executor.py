"""Attempts on a Ray cluster, driven as the coordinator drives them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.decide.lifecycle import classify
from orchestrator.executors.gpus import Claim
from orchestrator.executors.ray import environment
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import State
from orchestrator.ports import Executor
from tests.executors.conformance import Bench, Conformance


class TestRayExecutor(Conformance):
    capacity, ahead = 6, 6

    @pytest.fixture(scope="class")
    @classmethod
    def factory(cls, cluster: Any) -> Iterator[Callable[[], Executor]]:
        """On the shared cluster. This process is its driver meanwhile, and is as before afterwards."""
        from orchestrator.executors.ray.executor import RayExecutor

        variables, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
        address = environment.prepare(cluster.address)
        yield lambda: RayExecutor(address, Claim())
        os.environ.clear()
        os.environ.update(variables)
        signal.signal(signal.SIGTERM, handler)

    def test_files_that_cannot_be_sent_to_a_node_that_does_not_see_them_are_told(self, bench: Bench) -> None:
        """The next attempt would begin again from nothing."""
        missing = Checkpoint(0, "checkpoints/0")
        outcome = classify(bench.ended(bench.launch(attempt=2, restore=(missing,), sweep_uid="of another disk")))
        assert (outcome.state, outcome.cause) == (State.LOST, "lost_worker")
        assert outcome.message.startswith("what it needs cannot be sent to its node: FileNotFoundError: ")

    def test_files_are_not_read_for_a_node_that_sees_them(self, bench: Bench) -> None:
        """A checkpoint may have gigabytes. Nobody writes to this pipe: whoever reads it waits for ever."""
        folder = bench.root / "sweep" / "trials" / f"{bench.count + 1:012x}"
        (folder / "checkpoints").mkdir(parents=True)
        os.mkfifo(folder / "checkpoints" / "0")
        assert bench.ended(bench.launch(attempt=2, restore=(Checkpoint(0, "checkpoints/0"),))).exit_code == 0
