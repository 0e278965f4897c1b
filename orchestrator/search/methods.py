"""Search strategies, by the name that `sweep.search.method` gives them."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ports import SearchStrategy
from orchestrator.search.grid import GridSearch
from orchestrator.search.random import RandomSearch
from orchestrator.search.space import Space

METHODS: dict[str, Callable[[Space, int], SearchStrategy]] = {"grid": GridSearch, "random": RandomSearch}
