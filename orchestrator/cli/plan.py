"""`orchestrate plan`: prints what `sweep` would run. It runs and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from orchestrator import naming
from orchestrator.cli.common import Parser, positive, print_json
from orchestrator.folder.paths import SweepFolder, runs_root
from orchestrator.language import planning, trainer_source
from orchestrator.language.planning import SweepPlan
from orchestrator.manifest.reader import Reader
from orchestrator.model import trainer
from orchestrator.model.sweep import State, SweepSpec, TrialSpec
from orchestrator.provenance.code import code_hash, difference

SHOWN = 5


def parser() -> Parser:
    options = Parser("plan", "FILE [KEY=VALUE …] [options]", "Print what `sweep` would run, without running it.")
    options.add_argument("file", type=Path, help="the sweep file")
    options.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options.add_argument("--config-dir", type=Path, metavar="DIR")
    options.add_argument("--limit", type=positive, metavar="N", help=f"show the first N trials (default {SHOWN})")
    options.add_argument("--json", action="store_true", help="one JSON object per line for each trial")
    return options


def run(words: Sequence[str]) -> int:
    options = parser().read(words)
    plan = planning.load(options.file, options.overrides, options.config_dir)
    trainer_source.check(trainer.parse(plan.spec.trainer), Path.cwd())
    if options.json:
        for number, trial in enumerate(plan.trials()):
            if options.limit is not None and number >= options.limit:
                break
            print_json({"trial_id": trial.trial_id, "overrides": trial.overrides, "config": plan.shown(trial)})
        return 0
    folder = SweepFolder(runs_root(options.runs) / plan.spec.name)
    _print(plan, folder, options.limit or SHOWN)
    return 0


def _print(plan: SweepPlan, folder: SweepFolder, shown: int) -> None:
    code = code_hash(Path.cwd(), folder.path.parent, plan.spec.code)
    known = _known(folder, code)
    states: Counter[str] = Counter()
    first: list[TrialSpec] = []
    seen = 0
    for trial in plan.trials():
        state = known.pop(trial.trial_id, "to run")
        states[state] += 1
        seen += 1
        if len(first) < shown:
            first.append(trial)
    summary = plan.summary()
    removed = sum(1 for state in known.values() if state)
    print(f"{plan.spec.name}: {summary.total} trials of {plan.spec.trainer}")
    for group, options in summary.by_choice.items():
        print(f"  {group}: " + ", ".join(f"{option} {count}" for option, count in options.items()))
    for count, words in ((summary.excluded, "excluded"), (summary.duplicates, "duplicates, run once")):
        if count:
            print(f"  {count} {words}")
    order = ("done", "stale: done with other code", "failed", "running", "to run")
    print("  " + ", ".join(f"{states[state]} {state}" for state in order if states[state]))
    if states["stale: done with other code"]:
        print(f"  changed since: {_changes(folder, code, plan.spec) or 'the code'}  (--rerun stale runs them again)")
    if removed:
        print(f"  {removed} no longer in this sweep (orchestrate trials {folder.name} --all)")
    for warning in summary.warnings:
        print(f"  note: {warning}")
    print()
    for trial in first:
        print(f"  {trial.trial_id}  {naming.label(trial.overrides)}")
    if seen > len(first):
        print(f"  … and {seen - len(first)} more")


def _known(folder: SweepFolder, code: str) -> dict[str, str]:
    """What the manifest says about each trial, in words."""
    if not folder.manifest.is_file():
        return {}
    with Reader(folder) as reader:
        return {trial_id: _describe(state, code_used, code) for trial_id, state, code_used in reader.states()}


def _describe(state: State, code_used: str, code: str) -> str:
    if state is State.SUCCEEDED:
        return "done" if code_used == code else "stale: done with other code"
    if state in (State.FAILED, State.LOST):
        return "failed"
    if state.open:
        return "running"
    return "done" if state is State.STOPPED else "to run"


def _changes(folder: SweepFolder, code: str, spec: SweepSpec) -> str:
    """The changes of the code since the last plan that used other code."""
    with Reader(folder) as reader:
        trees = [tree for code_used, tree in reader.trees() if code_used != code and tree]
    return difference(folder.code / trees[-1], Path.cwd(), folder.path.parent, spec.code) if trees else ""
