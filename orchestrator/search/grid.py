"""Every assignment, in order."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.search.space import Assignment, Space


class GridSearch:
    """The whole space, the first axis slowest."""

    def __init__(self, space: Space, seed: int) -> None:
        del seed  # nothing is drawn
        self._space = space

    def ask(self) -> Iterator[Assignment]:
        """Assignments in order, lazily; the same ones each time."""
        return self._space.walk()

    def tell(self, trial_id: str, objective: float | None) -> None:
        """A grid learns nothing."""
