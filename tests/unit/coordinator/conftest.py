"""Scenes, closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.manifest.writer import Manifest
from tests.unit.coordinator.support import Scene


@pytest.fixture
def scene(manifest: Manifest) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**how: Any) -> Scene:
        made.append(Scene(manifest, **how))
        return made[-1]

    yield make
    for each in made:
        each.reader.close()
