"""A bed for each test, and the results of the same sweep where nothing happens to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.bed")

from tests.faults.bed import Bed, Series, delivered, local  # noqa: E402 - after the line above
from tests.ray.support import TRACKED  # noqa: E402
from tests.wandb_server import Server  # noqa: E402


@pytest.fixture(scope="session")
def campaign(request: pytest.FixtureRequest) -> bool:
    """Whether this is `make faults`; else a part that is representative."""
    return request.config.getoption("--faults", None) is not None


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = local(tmp_path / "bed")
    yield bed
    bed.end()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def uninjured(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Series]:
    """The series of a sweep to which nothing happens, tracked and local."""
    known: dict[tuple[str, ...], Series] = {}

    def run(*words: str) -> Series:
        if words not in known:
            bed, server = local(tmp_path_factory.mktemp("uninjured") / "bed"), Server()
            bed.tracked(server)
            bed.env["COUNT"] = str(bed.root / "count.json")
            bed.sweep(*words, TRACKED)
            bed.run("sync")  # a slow machine gives up waiting at the end, and names this
            known[words] = bed.series()
            bed.whole(known[words])
            delivered(server, known[words])
            server.close()
        return known[words]

    return run


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--faults", None) is None:
        left_out = [item for item in items if item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
