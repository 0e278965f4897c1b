"""Which trial of a plan is next: those that are due again first, then the plan in its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from orchestrator.manifest.writer import Manifest
from orchestrator.model.rows import Due

PAGE = 256  # trials that are read from the plan at once


class PlanSource:
    """Reads the plan page by page. Its calls take part in the manifest's transaction around them."""

    def __init__(self, manifest: Manifest, plan: int, limit: int | None = None, first: Sequence[str] = ()) -> None:
        """`limit`: how many of the plan's trials that wait. `first`: trials to run before, perhaps of earlier plans."""
        self._manifest, self._plan, self._left = manifest, plan, limit
        self._again = deque(first)
        self._page: deque[str] = deque()
        self._after = -1  # position up to which the plan was read
        self._read = False  # the plan was read to its end

    def next(self) -> Due | None:
        """Looks at every trial once more: since its page was read, it may have been resubmitted, and run."""
        while self._again or self._page or self._read_page():
            due = self._manifest.trials.due_one((self._again or self._page).popleft())
            if due is not None:
                return due
        return None

    def give_back(self, due: Due) -> None:
        self._page.appendleft(due.spec.trial_id)

    def again(self, trial_ids: Iterable[str]) -> None:
        self._again.extend(trial_ids)

    @property
    def exhausted(self) -> bool:
        return self._read and not self._page and not self._again

    def _read_page(self) -> bool:
        """Whether the plan had more trials that wait."""
        if self._read:
            return False
        size = PAGE if self._left is None else min(PAGE, self._left)
        found = self._manifest.trials.due(self._plan, self._after, size)
        self._page.extend(due.spec.trial_id for due in found)
        self._left = None if self._left is None else self._left - len(found)
        self._read = not self._page
        if found:
            self._after = found[-1].position
        return bool(self._page)
