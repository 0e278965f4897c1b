"""`orchestrate status`: the state of a sweep, whether it is running or not."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from orchestrator import naming
from orchestrator.cli import view
from orchestrator.cli.common import Parser, find_sweep, print_json
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import State
from orchestrator.results.snapshot import Snapshot, read_snapshot


def parser() -> Parser:
    options = Parser(
        "status", "[SWEEP] [options]", "Counts by state, best trial, failures and running trials of a sweep."
    )
    options.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    options.add_argument("--json", action="store_true", help="one JSON object: counts by state, total, best, …")
    options.add_argument("-w", "--watch", action="store_true", help="keep showing it until the sweep ends")
    return options


def run(words: Sequence[str]) -> int:
    options = parser().read(words)
    folder = find_sweep(options)
    if options.watch and not options.json:
        return _watch(options)
    with Reader(folder) as reader:
        snap = read_snapshot(folder, reader)
    if options.json:
        print_json(snap.as_json())
    else:
        _print(snap)
    return 0


def _watch(options: argparse.Namespace) -> int:
    """Show the state until the sweep ends: on a terminal a live view, elsewhere a line whenever the counts change."""
    folder = find_sweep(options)
    if view.is_terminal():
        with view.LiveView(folder), Reader(folder) as reader:
            while read_snapshot(folder, reader, shown=0).holder is not None:
                time.sleep(view.REFRESH)
        return 0
    before = ""
    with Reader(folder) as reader:
        while True:
            snap = read_snapshot(folder, reader, shown=0)
            line = _counts(snap)
            if line != before:
                print(line, flush=True)
            if snap.holder is None:
                return 0
            before = line
            time.sleep(view.REFRESH)


def _counts(snap: Snapshot) -> str:
    return f"{snap.name}  {snap.finished}/{snap.total}  {view.counts_text(snap.counts)}"


def _print(snap: Snapshot) -> None:
    print(_counts(snap))
    now = time.time()
    for row in snap.running:
        metrics = "  ".join(f"{key} {naming.metric(value)}" for key, value in list(row.metrics.items())[:3])
        print(f"  → {row.trial_id[:8]}  {row.label}  {row.slot}  {metrics}  {naming.duration(now - row.since)}")
    for line in view.results(snap):
        print(f"  {line}")
    if snap.stale:
        print(f"  {snap.stale} stale: finished with other code (orchestrate sweep … --rerun stale)")
    for tracker, address in snap.addresses.items():
        print(f"  {tracker}: {address}")
    print(f"  {_coordinator(snap)}")


def _coordinator(snap: Snapshot) -> str:
    if snap.holder is not None:
        left = f", about {naming.duration(snap.eta)} left" if snap.eta is not None else ""
        return f"running ({snap.holder}){left}"
    if snap.died:
        return "not running: its coordinator died; the same sweep command continues it"
    if snap.counts.get(State.PENDING) or snap.counts.get(State.CANCELLED):
        return "not running; the same sweep command continues it"
    return "ended"
