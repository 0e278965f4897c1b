"""`orchestrate status`: the state of a sweep, whether it is running or not."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from orchestrator import naming
from orchestrator.cli import view
from orchestrator.cli.common import Parser, find_sweep, print_json, sweep_command
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import State
from orchestrator.results.snapshot import Snapshot, read_snapshot


def parser() -> Parser:
    options = Parser(
        "status",
        "[SWEEP] [options]",
        "Counts by state, best trial, failures and running trials of a sweep.",
        ["status", "status address-tagging --watch", "status --json"],
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
        snap, plan = read_snapshot(folder, reader), reader.plan()
    if options.json:
        print_json(snap.as_json())
    else:
        _print(snap, sweep_command(plan, folder) if plan else "")
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


def _print(snap: Snapshot, command: str) -> None:
    """`command` goes on with the sweep."""
    print(_counts(snap))
    now = time.time()
    for row in snap.running:
        metrics = "  ".join(f"{key} {naming.metric(value)}" for key, value in list(row.metrics.items())[:3])
        slot = row.slot if snap.hosts > 1 else row.gpus
        facts = (naming.label(row.overrides), metrics, row.progress, slot, naming.duration(now - row.since))
        print("  ".join([f"  → {row.trial_id[:8]}", *filter(None, facts)]))
    for line in view.results(snap):
        print(f"  {line}")
    if snap.stale:
        print(f"  {snap.stale} stale: finished with other code; to run them again: {command} --rerun stale")
    for tracker, address in snap.addresses.items():
        print(f"  {tracker}: {address}")
    print(f"  {_coordinator(snap, command)}")


def _coordinator(snap: Snapshot, command: str) -> str:
    if snap.holder is not None:
        left = f", about {naming.duration(snap.eta)} left" if snap.eta is not None else ""
        return f"running ({snap.holder}){left}"
    if snap.died:
        return f"not running: its coordinator died; the same sweep command continues it: {command}"
    if snap.counts.get(State.PENDING) or snap.counts.get(State.CANCELLED):
        return f"not running; the same sweep command continues it: {command}"
    if snap.ended is None:
        return "ended"
    return f"ended {time.strftime('%Y-%m-%d %H:%M', time.localtime(snap.ended))}"
