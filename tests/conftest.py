"""For every test: one environment, in whatever order they run, and which tests share a worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

# Ray reads these once, when it is imported, so every test folder must find the same values. What the user's own
# environment says about Ray, W&B and where sweeps are must not reach a test.
for name in list(os.environ):
    if name.startswith(("RAY_", "WANDB_", "ORCHESTRATE_")):
        del os.environ[name]
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "c" * 64,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "WANDB_MODE": "offline",
    "OMP_NUM_THREADS": "1",  # torch with more threads than cores, in several workers, takes minutes for seconds of work
}
EMBEDDED = "tests/ray/test_embedded.py"  # its sweeps start Ray themselves
# The files of tests/ray that take half of its time: with several workers they run on a Ray cluster of their own.
SECOND_CLUSTER = {f"tests/ray/test_{name}.py" for name in ("cluster", "executor", "tracking")}
SET_BY_OTHERS = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "PYTHONBREAKPOINT"}  # by pytest, torch and ray.init


def process_state() -> dict[str, str]:
    """What one test could change for those after it: environment variables and the working directory."""
    variables = {name: value for name, value in os.environ.items() if name not in SET_BY_OTHERS}
    return variables | {"the working directory": os.getcwd()}


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """A test fails if the environment or the working directory is not as before when it ends."""
    before = process_state()
    yield
    after = process_state()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    assert not changed, f"this test changed {', '.join(changed)} and did not change it back"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers (`-n`): who takes which tests. `--dist loadgroup` has no effect with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        """A worker takes all tests of a file, which may share a slow fixture, or of all files that share a cluster."""

        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if not file.startswith("tests/ray/") or file == EMBEDDED:
                return file
            return "second cluster" if file in SECOND_CLUSTER else "first cluster"

    return ByFile(config, log)
