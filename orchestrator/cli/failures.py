"""`orchestrate failures`: groups of similar failures, and the settings that the trials of a group share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator import naming
from orchestrator.cli import run_again
from orchestrator.cli.common import Parser, find_sweep, gc_paused, print_json
from orchestrator.cli.pager import through_pager
from orchestrator.decide import failures
from orchestrator.decide.failures import Group
from orchestrator.manifest.query import ALL
from orchestrator.manifest.reader import Reader
from orchestrator.model.exact_json import configs
from orchestrator.model.sweep import State

EXAMPLES = ("failures", "failures address-tagging --json")
ENDED = (State.SUCCEEDED, State.STOPPED, State.FAILED, State.LOST)


@through_pager
@gc_paused()
def run(words: Sequence[str]) -> int:
    parser = Parser("failures", "[SWEEP] [options]", "Failed trials, grouped by cause and line of code.", EXAMPLES)
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    parser.add_argument("--json", action="store_true", help="one JSON object per group")
    options = parser.read(words)
    folder = find_sweep(options)
    with Reader(folder) as reader, reader.snapshot():
        plan = reader.plan()
        failed = reader.failed()
        total = reader.count(ALL)
        ended = _ended(reader) if failed else {}
    groups = failures.grouped(failed)
    if options.json:
        for group in groups:
            print_json(_as_json(group, ended))
        return 0
    ways = f", in {naming.count(len(groups), 'way')}" if groups else ""
    print(f"{reader.name}: {len(failed)} of {naming.count(total, 'trial')} failed{ways}")
    for group in groups:
        _print(group, ended)
    if groups:
        command = f"orchestrate resubmit {folder.name} --cause {groups[0].fingerprint.cause}"
        for line in run_again.hint(folder, plan, command, "those"):
            print(line)
    return 0


def _ended(reader: Reader) -> dict[str, Any]:
    """The settings of each trial that has ended."""
    found = reader.listed("trial_id, state, overrides", ALL)
    ended = [(trial_id, text) for trial_id, state, text in found if state in ENDED]
    return dict(zip([name for name, _ in ended], configs([text for _, text in ended]), strict=True))


def _difference(group: Group, ended: dict[str, Any]) -> list[tuple[str, Any, int]]:
    """The settings that distinguish a group from the other trials that have ended."""
    members = set(group.trials)
    others = [settings for trial_id, settings in ended.items() if trial_id not in members]
    return failures.difference([ended[trial_id] for trial_id in group.trials], others)


def _print(group: Group, ended: dict[str, Any]) -> None:
    count = len(group.trials)
    print(f"  {count}×  {group.line}  ({group.fingerprint.cause}, orchestrate show {group.example[:8]})")
    found = _difference(group, ended)
    if found:
        settings = ", ".join(f"{naming.value(key)}={naming.value(value)}" for key, value, _ in found)
        hits = found[0][2]
        print(f"      {'all' if hits == count else f'{hits} of {count}'} with {settings}")


def _as_json(group: Group, ended: dict[str, Any]) -> dict[str, Any]:
    return {
        "cause": group.fingerprint.cause,
        "kind": group.fingerprint.error,
        "place": group.fingerprint.place,
        "message": group.line,
        "count": len(group.trials),
        "example": group.example,
        "trials": list(group.trials),
        "difference": [{"key": key, "value": value, "trials": hits} for key, value, hits in _difference(group, ended)],
    }
