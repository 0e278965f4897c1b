"""The live view of a sweep on a terminal; elsewhere, one plain line per change of a trial's state."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator import naming
from orchestrator.coordinator.loop import Transition
from orchestrator.errors import OrchestratorError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import State
from orchestrator.results.snapshot import Running, Snapshot, read_snapshot

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH = 0.5  # seconds
STYLES = {  # in this order
    State.SUCCEEDED: "green",
    State.RUNNING: "cyan",
    State.PENDING: "dim",
    State.FAILED: "red",
    State.LOST: "red",
    State.STOPPED: "yellow",
    State.CANCELLED: "yellow",
}
_GAP = 2  # columns between two cells
_LEAST = 16  # characters of a label; before it gets fewer, a second metric is left out


def counts_text(counts: Mapping[State, int]) -> str:
    """The counts in words: "20 succeeded · 1 failed · 3 waiting"."""
    return " · ".join(f"{count} {state.word}" for state, count in _by_word(counts))


def _by_word(counts: Mapping[State, int]) -> Iterator[tuple[State, int]]:
    for state in STYLES:
        count = sum(counts.get(other, 0) for other in State if other.word == state.word)
        if count:
            yield state, count


def results(snap: Snapshot) -> Iterator[str]:
    """The best trial and the groups of failures, one plain line each."""
    if snap.best is not None and snap.objective is not None:
        yield f"best: {snap.best.line(snap.objective)}"
        single = snap.best.single_line(snap.objective)
        if single:
            yield f"best single trial, not the best config: {single}"
    for failure in snap.failures:
        yield f"failed: {failure.message}  ({failure.trials}×, orchestrate show {snap.argument}/{failure.example[:8]})"
    if snap.failed_otherwise:
        yield f"failed: {snap.failed_otherwise} more in other ways  (orchestrate failures {snap.argument})"


def render(snap: Snapshot, now: float, width: int) -> RenderableType:
    """The whole view as one renderable, for a terminal of so many columns."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_headline(snap), Text("  ") + _counts(snap.counts)]
    if snap.running:
        parts += [Text(), _running_table(snap, now, width)]
        hidden = snap.counts.get(State.RUNNING, 0) - len(snap.running)
        if hidden > 0:
            parts.append(Text(f"  … and {hidden} more running", style="dim"))
    facts = _facts(snap)
    if facts:
        parts += [Text(), facts]
    return Group(*parts)


def _headline(snap: Snapshot) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(padding=(0, 2))
    line.add_column(no_wrap=True)
    line.add_column(max_width=36)  # this column shrinks on a narrow terminal
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True)
    done = f"{snap.finished}/{snap.total}"
    in_progress = snap.eta is not None and snap.finished < snap.total
    eta = f"about {naming.duration(round(snap.eta or 0))} left" if in_progress else ""
    bar = ProgressBar(total=max(1, snap.total), completed=snap.finished, complete_style="cyan")
    line.add_row(f"[bold]{snap.name}[/bold]", bar, done, f"[dim]{eta}[/dim]")
    return line


def _counts(counts: Mapping[State, int]) -> RenderableType:
    from rich.text import Text

    return Text(" · ").join([Text(f"{count} {state.word}", style=STYLES[state]) for state, count in _by_word(counts)])


def _running_table(snap: Snapshot, now: float, width: int) -> RenderableType:
    """One line per running trial. On a narrow terminal the settings are shortened, never the numbers."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, _GAP))
    styles = ("cyan", "", "", "", "dim", "dim")
    cells = _fitting(snap, now, width)
    shown = [column for column in range(len(styles)) if any(row[column] for row in cells)]
    for column in shown:
        grid.add_column(style=styles[column], no_wrap=True)
    for row in cells:  # as plain text, because a setting may look like markup: "[bold]"
        grid.add_row(*(Text(row[column]) for column in shown))
    return grid


def _fitting(snap: Snapshot, now: float, width: int) -> list[tuple[str, ...]]:
    """The cells of each running trial: id, label, metrics, step, slot, duration; in all no wider than `width`."""
    labels = [naming.label(row.overrides) for row in snap.running]
    rows: list[tuple[str, ...]] = []
    for metrics in (2, 1):
        rows = [_running(row, snap, now, metrics) for row in snap.running]
        columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
        room = width - sum(size + _GAP for size in columns if size)
        if room >= max(map(len, labels)) or (room >= _LEAST and metrics == 2):
            break
    labels = naming.labels([row.overrides for row in snap.running], max(room, 1))
    return [(row[0], label, *row[1:]) for row, label in zip(rows, labels, strict=True)]


def _running(row: Running, snap: Snapshot, now: float, metrics: int) -> tuple[str, ...]:
    """The cells of a running trial without its label, with so many of its metrics."""
    shown = list(row.metrics.items())[:metrics]
    numbers = "  ".join(f"{name} {naming.metric(value)}" for name, value in shown)
    slot = row.slot if snap.hosts > 1 else row.gpus
    return f"  {row.trial_id[:8]}", numbers, row.progress, slot, naming.duration(now - row.since)


def _facts(snap: Snapshot) -> RenderableType | None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True, width=8)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    if snap.best is not None and snap.objective is not None:
        grid.add_row("  best", Text(snap.best.line(snap.objective)))
    for failure in snap.failures:
        more = f" and {failure.trials - 1} more" if failure.trials > 1 else ""
        grid.add_row("  failed", Text(f"{failure.example[:8]}{more}  {failure.message}", style="red"))
    if snap.failed_otherwise:
        grid.add_row("", Text(f"{snap.failed_otherwise} more in other ways", style="red"))
    if snap.stale:
        grid.add_row("  stale", f"{snap.stale} finished with other code  (--rerun stale)")
    for tracker, address in snap.addresses.items():
        grid.add_row(f"  {tracker}", Text(address))
    return grid if grid.row_count else None


class LiveView:
    """Redraws the state of a sweep on the terminal until it is stopped. It only reads the manifest."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="view", daemon=True)
        self.notes: list[str] = []

    def __enter__(self) -> LiveView:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _draw(self) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        with Reader(self._folder) as reader, Live(console=_console(), auto_refresh=False) as live:
            while True:
                last = self._stop.is_set()
                began = time.monotonic()
                try:
                    snap = read_snapshot(self._folder, reader, shown=_lines(live.console.height))
                    view = render(snap, time.time(), live.console.width)
                except OrchestratorError:
                    if last:
                        return
                    self._stop.wait(REFRESH)  # try again at the next refresh
                    continue
                notes = [Text(f"  note: {note}", style="yellow") for note in self.notes]
                live.update(Group(view, *notes), refresh=True)
                if last:
                    return
                # A large manifest is redrawn less often.
                self._stop.wait(max(REFRESH, 10 * (time.monotonic() - began)))


def _lines(height: int) -> int:
    """How many running trials are shown on a screen: the rest of it is for counts, facts and notes."""
    return max(3, height - 12)


class PlainView:
    """Prints one line per transition, without control characters."""

    def __init__(self, total: int, finished: int, say: Callable[[str], None]) -> None:
        self._total, self._finished, self._say = total, finished, say

    def show(self, transitions: Iterable[Transition]) -> None:
        for transition in transitions:
            line = self._line(transition)
            if line:
                self._say(line)

    def _line(self, change: Transition) -> str | None:
        trial = f"{change.spec.trial_id[:8]}  {naming.label(change.spec.overrides)}"
        live = change.live
        place = f"{change.place}: " if change.place else ""
        if change.state is State.LAUNCHING:
            return None
        if change.state is State.RUNNING:
            started = live.started
            slot = f"{started.node}{' gpu ' + ','.join(started.gpus) if started.gpus else ''}" if started else ""
            again = f"  attempt {change.attempt}" if change.attempt > 1 else ""
            return f"→ {trial}  on {slot}{again}"
        if change.retry and change.state is State.CANCELLED:
            return None  # the attempt was only queued; the trial still waits
        if change.retry:
            return f"↻ {trial}  {change.state.word}, runs again: {place}{change.message}"
        if change.state is State.CANCELLED:
            return f"⊘ {trial}  {change.state.word}: {change.message or 'as asked'}"
        self._finished += 1
        count = f"[{self._finished}/{self._total}]"
        if change.state is State.SUCCEEDED:
            metrics = [f"{key} {_plain(value)}" for key, value in list(live.standing.shown.items())[:3]]
            seconds = [naming.duration(change.at - live.started.at)] if live.started and change.at else []
            return "  ".join([f"✓ {trial}", *metrics, *seconds, count])
        glyph = "✗" if change.state in (State.FAILED, State.LOST) else "⊘"
        return f"{glyph} {trial}  {change.state.word}: {place}{change.message or 'as asked'}  {count}"


def _plain(value: Any) -> str:
    return naming.metric(float(value) if isinstance(value, str) else value)  # "NaN" is one in JSON


def is_terminal() -> bool:
    """Whether the output is a terminal that can be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _console() -> Console:
    """Rich takes COLUMNS=0 for a terminal without width."""
    from rich.console import Console

    odd = os.environ.get("COLUMNS") == "0"
    return Console(width=shutil.get_terminal_size().columns if odd else None)
