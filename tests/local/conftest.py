"""The command line as users have it, with trials on this machine without Ray, on two slots: half a second a sweep."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray.support import Project, new_project, recording_server
from tests.wandb_server import Server

LOCAL = (sys.executable, str(Path(__file__).parents[1] / "faults" / "driver.py"))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with new_project(tmp_path, command=LOCAL) as project:
        yield project


@pytest.fixture
def server(project: Project) -> Iterator[Server]:
    with recording_server(project) as server:
        yield server
