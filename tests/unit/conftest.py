"""What several tests of units begin with."""

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
from tests.unit import manifests

# A slow machine is no failure: no deadline for an example, and no complaint that data is drawn slowly.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")


@pytest.fixture(scope="module")
def zygote_pool() -> Iterator[ZygotePool]:
    """One for all tests of a module: to import torch takes seconds."""
    shared = ZygotePool()
    yield shared
    shared.close()


@pytest.fixture
def folder() -> Iterator[SweepFolder]:
    """A new sweep's folder."""
    with tempfile.TemporaryDirectory(dir=manifests.quick()) as root:
        yield manifests.create(Path(root) / "runs")


@pytest.fixture
def manifest(folder: SweepFolder) -> Iterator[Manifest]:
    """The writer of `folder`."""
    opened = Manifest.open(folder)
    yield opened
    opened.close()


@pytest.fixture
def reader(manifest: Manifest) -> Iterator[Reader]:
    """A reader beside the writer."""
    with Reader(manifest.folder) as opened:
        yield opened
