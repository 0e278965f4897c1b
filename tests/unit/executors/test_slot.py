"""A slot of the Ray executor, without Ray."""

from __future__ import annotations

import os
import signal

from orchestrator.executors.ray import slot


def test_whatever_announces_the_end_of_the_worker_is_noted() -> None:
    announced = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]  # Slurm's `--signal` names one of the last two
    before = list(map(signal.getsignal, announced))
    with slot._terminations() as received:
        for number in announced:
            os.kill(os.getpid(), number)
        assert received == announced
    assert list(map(signal.getsignal, announced)) == before
