"""Search strategies, by the name that `sweep.search.method` gives them."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.language.search.grid import GridSearch
from orchestrator.language.search.random import RandomSearch
from orchestrator.language.space import Space
from orchestrator.ports import SearchStrategy

METHODS: dict[str, Callable[[Space, int], SearchStrategy]] = {"grid": GridSearch, "random": RandomSearch}
