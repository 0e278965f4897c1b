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
EMBEDDED = "tests/ray/test_embedded.py"  # each test there starts Ray for itself
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
        """One worker takes the tests of a file, which may share a slow fixture, and all tests of the Ray cluster."""

        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "cluster" if file.startswith("tests/ray/") and file != EMBEDDED else file

    return ByFile(config, log)
