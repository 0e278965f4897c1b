"""One Ray cluster of two nodes with logical GPUs for all tests here, and a user's project to run sweeps in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.executors.conformance")

from tests.ray.support import SWEEP, TRAINER, Project  # noqa: E402 - after the line above

HEAD = {"num_cpus": 4, "num_gpus": 4, "include_dashboard": False, "object_store_memory": 100 * 2**20}
SECOND = {
    "num_cpus": 2,
    "num_gpus": 2,
    "object_store_memory": 100 * 2**20,
    "resources": {"licence": 1},
    "labels": {"zone": "north"},
}


@pytest.fixture(scope="session", autouse=True)
def token() -> None:
    """Before Ray is imported: it reads these then, and never again."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="c" * 64, RAY_USAGE_STATS_ENABLED="0")
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - its name
    os.environ["WANDB_MODE"] = "offline"
    for name in ("RAY_ADDRESS", "ORCHESTRATE_RUNS"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def cluster(token: None) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    cluster.add_node(**SECOND)
    yield cluster
    cluster.shutdown()


def _project(root: Path, address: str | None) -> Iterator[Project]:
    (root / "work.py").write_text(TRAINER)
    (root / "conf").mkdir()
    (root / "conf" / "sweep.yaml").write_text(SWEEP)
    (root / "meet").mkdir()
    project = Project(root, address)
    yield project
    project.end()


@pytest.fixture
def project(tmp_path: Path, cluster: Any) -> Iterator[Project]:
    """A project on the shared cluster."""
    yield from _project(tmp_path, cluster.address)


@pytest.fixture
def alone(tmp_path: Path, token: None) -> Iterator[Project]:
    """A project without a cluster: Ray starts embedded, and there is no GPU."""
    yield from _project(tmp_path, None)
