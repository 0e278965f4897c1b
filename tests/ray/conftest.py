"""One Ray cluster of two nodes with logical GPUs for all tests here, and a user's project to run sweeps in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.executors.conformance")

from tests.ray.support import Project, new_project, recording_server  # noqa: E402 - after the line above
from tests.wandb_server import Server  # noqa: E402

HEAD = {"num_cpus": 4, "num_gpus": 4, "include_dashboard": False, "object_store_memory": 100 * 2**20}
# The loss of a node is noticed in seconds instead of 15. A slow node still has Ray's 10 s to answer each check.
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500}
SECOND = {
    "num_cpus": 2,
    "num_gpus": 2,
    "object_store_memory": 100 * 2**20,
    "resources": {"licence": 1},
    "labels": {"zone": "north"},
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**HEAD, "_system_config": HEALTH})
    cluster.add_node(**SECOND)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def project(tmp_path: Path, cluster: Any) -> Iterator[Project]:
    """A project on the shared cluster."""
    with new_project(tmp_path, cluster.address) as project:
        yield project


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Project]:
    """A project without a cluster: Ray starts embedded, and there is no GPU."""
    with new_project(tmp_path) as project:
        yield project


@pytest.fixture
def server(project: Project) -> Iterator[Server]:
    with recording_server(project) as server:
        yield server
