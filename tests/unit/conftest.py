"""Fixtures that many unit tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.nvml import driver, library  # noqa: F401
from tests.unit import manifests

# Tests must also pass on a slow machine: no deadline per example, and no health check of the speed.
settings.register_profile("slow-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow-machine")


@pytest.fixture(scope="module")
def zygote_pool() -> Iterator[ZygotePool]:
    """One pool for all tests of a module, because importing torch takes seconds."""
    shared = ZygotePool()
    yield shared
    shared.close()


@pytest.fixture
def folder() -> Iterator[SweepFolder]:
    """The folder of a new sweep."""
    with tempfile.TemporaryDirectory(dir=manifests.quick()) as root:
        yield manifests.create(Path(root) / "runs")


@pytest.fixture
def manifest(folder: SweepFolder) -> Iterator[Manifest]:
    """The manifest in `folder`, open for writing."""
    opened = Manifest.open(folder)
    yield opened
    opened.close()


@pytest.fixture
def reader(manifest: Manifest) -> Iterator[Reader]:
    """A reader of the same manifest."""
    with Reader(manifest.folder) as opened:
        yield opened
