"""`orchestrate failures`: failed trials in groups that failed alike, and what the trials of a group share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator import failures, naming
from orchestrator.cli.common import Parser, find_sweep, print_json
from orchestrator.failures import Failed, Group
from orchestrator.manifest.reader import Reader
from orchestrator.model import State, TrialRow

FAILED = (State.FAILED, State.LOST)
ENDED = (State.SUCCEEDED, State.STOPPED, *FAILED)


def run(words: Sequence[str]) -> int:
    parser = Parser("failures", "[SWEEP] [options]", "Failed trials, grouped by cause and by the line they failed at.")
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    parser.add_argument("--json", action="store_true", help="one JSON object a group")
    options = parser.read(words)
    with Reader(find_sweep(options)) as reader:
        rows = {row.trial_id: row for row in reader.trials()}
    failed = [row for row in rows.values() if row.state in FAILED]
    groups = failures.grouped(Failed(row.trial_id, row.cause, row.message, row.place) for row in failed)
    if options.json:
        for group in groups:
            print_json(_as_json(group, rows))
        return 0
    ways = f", in {len(groups)} way{'s' * (len(groups) != 1)}" if groups else ""
    print(f"{reader.name}: {len(failed)} of {len(rows)} trials failed{ways}")
    for group in groups:
        _print(group, rows)
    if groups:
        print(f"orchestrate resubmit {reader.name} --cause {groups[0].fingerprint.cause}   runs those again")
    return 0


def _difference(group: Group, rows: dict[str, TrialRow]) -> list[tuple[str, Any, int]]:
    """From the other trials of the sweep that have ended."""
    members = set(group.trials)
    others = [row.overrides for row in rows.values() if row.state in ENDED and row.trial_id not in members]
    return failures.difference([rows[trial_id].overrides for trial_id in group.trials], others)


def _print(group: Group, rows: dict[str, TrialRow]) -> None:
    count = len(group.trials)
    print(f"  {count}×  {group.line}  ({group.fingerprint.cause}, orchestrate show {group.example[:8]})")
    found = _difference(group, rows)
    if found:
        settings = ", ".join(f"{naming.value(key)}={naming.value(value)}" for key, value, _ in found)
        hits = found[0][2]
        print(f"      {'all' if hits == count else f'{hits} of {count}'} with {settings}")


def _as_json(group: Group, rows: dict[str, TrialRow]) -> dict[str, Any]:
    return {
        "cause": group.fingerprint.cause,
        "kind": group.fingerprint.kind,
        "place": group.fingerprint.place,
        "message": group.line,
        "count": len(group.trials),
        "example": group.example,
        "trials": list(group.trials),
        "difference": [{"key": key, "value": value, "trials": hits} for key, value, hits in _difference(group, rows)],
    }
