"""What a tracker should be told: which runs a trial's attempts make, and which steps are complete. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.model.rows import AttemptRow, ReportRow
from orchestrator.model.sweep import State

_EXIT = {State.SUCCEEDED: 0, State.STOPPED: 0, State.CANCELLED: 255}  # 255: ended before it was done, on purpose


@dataclass(frozen=True)
class Goal:
    """One run as it should be: a lineage of a trial, that is attempts of which each continues the one before."""

    trial_id: str
    lineage: int
    attempts: tuple[AttemptRow, ...]
    over: bool  # nothing will be added
    superseded: bool  # a later lineage began from scratch
    rejoined: bool = False  # a lineage that its only attempt has left again: it restored a checkpoint of an older one

    @property
    def version(self) -> str:
        """Changes whenever a run that is over has to be delivered again."""
        if self.rejoined:
            return "rejoined"
        return f"{self.attempts[-1].changed}{' superseded' if self.superseded else ''}"

    @property
    def exit_code(self) -> int:
        last = self.attempts[-1]
        if self.rejoined:
            return _EXIT[State.CANCELLED]
        if last.state.open or last.retry:
            return 1 if self.superseded else 255
        return _EXIT.get(last.state, 1)

    def holds(self, row: ReportRow) -> bool:
        """Whether the row belongs to the effective series: no later attempt went on from before it."""
        return not any(
            later.attempt > row.attempt and later.restored is not None and later.restored < row.step
            for later in self.attempts
        )


def goals(attempts: Sequence[AttemptRow], held: bool) -> list[Goal]:
    """The runs of one trial. `held`: a coordinator lives, so that open attempts go on and retries follow.

    An attempt that restored a checkpoint may have had a lineage of its own before: a goal says so, in case a run was
    opened for it.
    """
    found = []
    for lineage in sorted({attempt.lineage for attempt in attempts}):
        members = tuple(attempt for attempt in attempts if attempt.lineage == lineage)
        last, superseded = members[-1], lineage != attempts[-1].lineage
        goes_on = last.state.open or last.retry
        began = any(member.started is not None for member in members)
        if began or not (goes_on or superseded):
            over = superseded or not (goes_on and held)
            found.append(Goal(last.trial_id, lineage, members, over, superseded))
    for member in attempts:
        if member.restored is not None and member.lineage != member.attempt:
            found.append(Goal(member.trial_id, member.attempt, (member,), over=True, superseded=True, rejoined=True))
    return found


def stand_in(run: str) -> str:
    """The id of the run that is sent whole in the place of another one."""
    return hashlib.sha256(f"{run}/again".encode()).hexdigest()[:16]


def run_id(sweep_uid: str, trial_id: str, lineage: int) -> str:
    """The same for every replay, and for no other sweep, trial or lineage anywhere."""
    return hashlib.sha256(f"{sweep_uid}/{trial_id}/{lineage}".encode()).hexdigest()[:16]


class Steps:
    """Merges the reports of one step, and yields each step once, in growing order.

    A step is complete when a later one has been reported, or the series is over. What is reported for a step that has
    been yielded is left out: the manifest has it, and `late` has the step.
    """

    def __init__(self, first: int, so_far: Sequence[ReportRow] = (), seen: int = 0) -> None:
        """`first`: the first step that the tracker does not have. `so_far`: what was reported by now, in any order.

        Rows up to the id `seen` were sent before, and what came too late of them was told.
        """
        self._first = first  # the first step that has not been yielded
        self._beyond = 0  # a row of a step before this one comes late
        self.late: set[int] = set()  # steps of which the tracker lacks what was reported last
        for row in sorted(so_far, key=lambda row: row.id):
            self._look(row)
            if row.id <= seen:
                self.late.clear()
        self._beyond = 0  # they are about to be added, in the order of their steps
        self._kept: dict[int, tuple[dict[str, float], float]] = {}

    def add(self, row: ReportRow) -> Iterator[tuple[int, dict[str, float], float]]:
        """Steps that are complete now: (step, metrics, time)."""
        self._look(row)
        if row.step >= self._first and row.metrics:
            before = self._kept.get(row.step, ({}, row.time))[0]
            self._kept[row.step] = ({**before, **row.metrics}, row.time)
            yield from self._below(max(self._kept))

    def _look(self, row: ReportRow) -> None:
        if row.metrics and row.step < min(self._first, self._beyond):
            self.late.add(row.step)
        self._beyond = max(self._beyond, row.step)

    def flush(self) -> Iterator[tuple[int, dict[str, float], float]]:
        """All the rest: the series is over."""
        yield from self._below(max(self._kept, default=0) + 1)
        self._beyond = max(self._beyond, self._first)

    def rewind(self, step: int) -> None:
        """An attempt went on from this step: later ones that have not been yielded will be reported again."""
        self._kept = {kept: row for kept, row in self._kept.items() if kept <= step}
        self._beyond = min(self._beyond, step + 1)

    def _below(self, bound: int) -> Iterator[tuple[int, dict[str, float], float]]:
        for step in sorted(kept for kept in self._kept if kept < bound):
            yield step, *self._kept.pop(step)
            self._first = step + 1
