"""A sweep whose GPUs others use waits for them; it never runs on the CPU instead."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.coordinator.session import RunLimits, Session, await_gpus, hold, plan_sweep, reopen
from orchestrator.errors import ResourceError
from orchestrator.executors import gpus
from orchestrator.executors.local import LocalExecutor
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import Resources, State, TrialSpec
from tests.nvml import FOUR, Driver
from tests.unit.coordinator.test_session import Plan
from tests.unit.manifests import FAILURE, run, trial_id, trial_spec

BUSY = [line.replace("- -", f"{2**30} -") for line in FOUR[:2]]
WAITING = f"waiting for GPUs that others use: GPU 0 (in use by pid {2**30}), GPU 1 (in use by pid {2**30})"


class OnGpus(Plan):
    gpus = 1.0

    def trial(self, number: int) -> TrialSpec:
        return trial_spec(number, resources=Resources(gpus=self.gpus, cpus=1))


class OnTheCpu(OnGpus):
    gpus = 0.0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text("def train(cfg): pass\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def start(project: Path) -> Callable[..., Session]:
    """Plan a sweep on the GPUs that are idle."""

    def plan(plan: Plan | None = None, wait: bool = True) -> Session:
        claim = gpus.claim(project / "locks")
        limits = RunLimits(wait=wait)
        return plan_sweep(
            project / "runs", plan or OnGpus(), project, None, limits, lambda: LocalExecutor(2, claim.ids), claim
        )

    return plan


def test_it_waits_until_a_gpu_is_idle_and_names_who_uses_them(driver: Driver, start: Callable[..., Session]) -> None:
    driver(BUSY)
    session = start()
    assert session.executor is None
    with Reader(session.folder) as reader:
        assert reader.counts() == {State.PENDING: 3}, "the plan is kept"
    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        driver([BUSY[0], FOUR[1]])

    assert await_gpus(session, say, pause=0.01)
    assert told == [WAITING]
    assert session.executor is not None
    assert session.executor.resolve(Resources()).gpus == 1
    session.release()


def test_without_waiting_it_is_refused_and_nothing_is_left_behind(
    driver: Driver, start: Callable[..., Session], project: Path
) -> None:
    driver(BUSY)
    with pytest.raises(ResourceError, match="others use the GPUs that a trial needs: GPU 0") as told:
        start(wait=False)
    assert "without --no-wait" in str(told.value)
    assert not (project / "runs").exists()


def test_trials_on_the_cpu_do_not_wait(driver: Driver, start: Callable[..., Session]) -> None:
    driver(BUSY)
    session = start(OnTheCpu())
    assert session.executor is not None
    session.release()


@pytest.mark.parametrize("how", ["request", "signal"])
def test_the_user_ends_it_while_it_waits(driver: Driver, start: Callable[..., Session], how: str) -> None:
    driver(BUSY)
    session = start()
    answer = session.folder.requests / "2.answer"

    def end(_: str) -> None:
        if how == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            (session.folder.requests / "1.json").write_text(json.dumps({"kind": "resubmit"}))
            (session.folder.requests / "2.json").write_text(json.dumps({"kind": "stop"}))

    assert not await_gpus(session, end, pause=0.01)
    assert session.interrupted
    assert answer.exists() == (how == "request")
    session.release()
    with Reader(session.folder) as reader:
        assert reader.counts() == {State.PENDING: 3}


def test_resubmitted_trials_wait_too(driver: Driver, start: Callable[..., Session], project: Path) -> None:
    driver(BUSY)
    session = start()
    run(session.manifest, 0, FAILURE)
    session.release()
    again = hold(session.folder)
    claim = gpus.claim(project / "locks")
    reopen(again, [trial_id(0)], {}, lambda: LocalExecutor(2, claim.ids), claim)
    assert again.executor is None
    assert await_gpus(again, lambda _: driver(), pause=0.01)
    again.release()
