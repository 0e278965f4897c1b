"""An interrupted benchmark leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# A process that never ends, with a child. Both, and the benchmark, hold the pipe open; it closes with the last of them.
ENDLESS = "import subprocess, sys; subprocess.Popen(['sleep', '1000']); print('ready', flush=True); sys.stdin.read()"
BENCHMARK = f"""
import subprocess, sys
import children
children.interruptible()
with children.child([sys.executable, "-c", {ENDLESS!r}], stdin=subprocess.PIPE) as process:
    process.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_benchmark_ends_its_children(number: signal.Signals) -> None:
    env = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    with subprocess.Popen(
        [sys.executable, "-c", BENCHMARK], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        with closing(process.stdout) as out:
            assert out.readline() == "ready\n"
            process.send_signal(number)
            assert out.read() == "", "no process holds the pipe open any more"
        assert process.wait() == 128 + number
