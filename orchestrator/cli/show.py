"""`orchestrate show TRIAL`: all information about one trial."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from orchestrator import naming
from orchestrator.cli import run_again
from orchestrator.cli.common import TRIAL_HELP, Parser, find_trial, print_json, relative, sweep_command
from orchestrator.cli.key_value import typed
from orchestrator.cli.pager import through_pager
from orchestrator.decide.early_abort import unreported
from orchestrator.folder.code_index import index_of, left_out_in_words
from orchestrator.folder.lock import holder_of
from orchestrator.folder.paths import SweepFolder, files_folder
from orchestrator.manifest.query import At
from orchestrator.manifest.reader import Reader
from orchestrator.model.rows import AttemptRow, PlanRow, TrialRow
from orchestrator.model.sweep import Objective, State
from orchestrator.results.listing import as_json
from orchestrator.tracking import control


def parser() -> Parser:
    options = Parser(
        "show",
        "TRIAL [options]",
        "One trial: its config, provenance, attempts, metrics, and how to rerun it.",
        ["show 6065", "show best", "show address-tagging/last --json"],
    )
    options.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    options.add_argument("--json", action="store_true", help="one JSON object")
    options.add_argument(
        "--at", choices=["last", "best"], help="metrics at this step of the objective (default: its own)"
    )
    return options


@through_pager
def run(words: Sequence[str]) -> int:
    options = parser().read(words)
    folder, trial = find_trial(options.runs, options.trial)
    live = holder_of(folder) is not None
    if trial.state.open and not live:  # its coordinator died: it waits to run again
        trial = dataclasses.replace(trial, state=State.PENDING)
    with Reader(folder) as reader:
        attempts = reader.attempts(trial.trial_id)
        current = reader.plan()
        plan = reader.plan_of(attempts[-1]) if attempts else current
        files = files_folder(folder, plan.spec.storage, plan.cwd, reader.uid) if plan else folder
        series = reader.series(trial.trial_id)
        used = reader.used([trial.trial_id])
        notices = {row.attempt: reader.notices(trial.trial_id, row.attempt) for row in attempts}
    objective = current.spec.objective if current else None
    rerun = f"orchestrate resubmit {folder.argument} --trial {trial.trial_id}"
    if options.json:
        print_json(
            {
                **as_json(trial, objective, options.at),
                "attempts": [{**dataclasses.asdict(row), "state": row.state.value} for row in attempts],
                "series": [{"step": step, "metrics": values} for step, values in series.items()],
                "provenance": plan.provenance if plan else {},
                "rerun": rerun,
                "files": str(files.trial(trial.trial_id)),
            }
        )
        return 0
    _print_head(folder, files, trial, rerun)
    if news := run_again.edited(folder, current, used):
        todays = run_again.todays(folder, current, run_again.which([trial.state]))
        print(f"         with the code of the sweep; {news}: {todays} takes today's")
    _print_metrics(trial, objective, options.at)
    _print_config(trial)
    if plan is not None:
        _print_provenance(folder, plan, trial)
    for row in attempts:
        _print_attempt(folder, row, notices[row.attempt], live)
    _print_series(series)
    for note in _missing(folder, trial, objective):
        print(f"note: {note}")
    return 0


def _print_head(folder: SweepFolder, files: SweepFolder, trial: TrialRow, rerun: str) -> None:
    print(f"trial {trial.trial_id} of {folder.name}: {trial.state.word}{' (stale)' if trial.stale else ''}")
    print(f"  {naming.label(trial.overrides)}")
    print(f"  folder {relative(folder.trial(trial.trial_id))}")
    if files != folder:
        print(f"  files  {relative(files.trial(trial.trial_id))}")
    print(f"  rerun  {rerun}")


def _print_metrics(trial: TrialRow, objective: Objective | None, at: At | None) -> None:
    """The metrics at the step of the objective, which comes first."""
    found = as_json(trial, objective, at)
    where = found["at"]
    step = f", step {trial.best_step}" if where == "best" and trial.best_step is not None else ""
    if objective is not None and found["objective"] is not None:
        print(f"  objective {objective.metric} {found['objective']!r} ({where}{step})")
    if found["metrics"]:
        print(f"\nmetrics ({where}{step})")
        for name, value in found["metrics"].items():
            print(f"  {name} {value!r}")


def _print_config(trial: TrialRow) -> None:
    print("\nconfig")
    for line in _tree(trial.config, 1):
        print(line)


def _tree(node: Mapping[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{'  ' * depth}{key}:", *_tree(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{key}: {_exact(value)}")
    return lines


def _exact(item: Any) -> str:
    """The value of a setting with all digits, in a form that can be typed as an override."""
    if isinstance(item, float):
        return repr(item)
    if isinstance(item, (list, tuple)):
        return "[" + ",".join(map(_exact, item)) + "]"
    if isinstance(item, str) and not _reads_as_text(item):
        return json.dumps(item)
    return naming.value(item)


def _reads_as_text(text: str) -> bool:
    """Whether YAML reads the text as itself, without quotes."""
    try:
        return bool(typed(text) == text)
    except yaml.YAMLError:
        return False


def _print_provenance(folder: SweepFolder, plan: PlanRow, trial: TrialRow) -> None:
    facts = plan.provenance
    print("\nprovenance")
    command = sweep_command(plan, folder)
    change = f" with {facts['change']}" if facts.get("change") else ""
    rows = {
        "planned": f"{_when(plan.created)} by {command}",
        "code": f"{trial.code or plan.code} in {relative(folder.code / str(facts.get('tree', '')))}",
        "commit": "; ".join([f"{facts.get('commit') or 'none'}{change}", *facts.get("problems", ())]),
        "packages": f"{relative(folder.provenance / str(facts.get('packages', '')))}",
        "python": f"{facts.get('python')} on {facts.get('platform')}",
        "seed": str(trial.seed),
    }
    for key, text in rows.items():
        print(f"  {key:<9} {text}")
    index = index_of(folder.code / str(facts.get("tree", "")))
    if index is not None:
        for text in left_out_in_words(index.left_out):
            print(f"  left out  {text}")
        for place in index.live:
            print(f"  live      {place} (too large to copy: trials import from it where it is)")


def _print_attempt(folder: SweepFolder, row: AttemptRow, notices: Iterable[str], live: bool) -> None:
    state = row.state.word if live or not row.state.open else "not ended, its coordinator died"
    slot = f" on {row.node}" + (f" gpu {','.join(row.gpus)}" if row.gpus else "") if row.node else ""
    seconds = "" if row.seconds is None else f", {naming.duration(row.seconds)}"
    print(f"\nattempt {row.attempt}: {state}{slot}{seconds}, {_when(row.started or row.created)}")
    facts = [
        f"pid {row.pid}" if row.pid else "",
        row.method,
        naming.count(row.threads, "thread") if row.threads else "",
    ]
    if row.gpu_uuids:
        facts.append(" ".join(row.gpu_uuids))
    if row.restored is not None:
        facts.append(f"continued from the checkpoint of step {row.restored}")
    print("  " + ", ".join(filter(None, [*facts, f"code {row.code}" if row.code else ""])))
    if row.message:
        print(f"  {row.cause}: {row.place + ': ' if row.place else ''}{row.message}")
    for line in row.traceback.rstrip().splitlines():
        print(f"    {line}")
    log = folder.attempt_log(row.trial_id, row.attempt)
    if log.exists():
        print(f"  log {relative(log)}")
    for notice in notices:
        if not notice.startswith("succeeded without a report of"):  # of an older version: `_missing` says it
            print(f"  note: {notice}")


def _print_series(series: Mapping[int, Mapping[str, float]]) -> None:
    if not series:
        return
    names = list(dict.fromkeys(name for values in series.values() for name in values))[:6]
    shown = list(series.items())
    print("\n  step  " + "  ".join(names))
    cut = len(shown) > 20
    for step, values in shown[:5] + shown[-10:] if cut else shown:
        if cut and step == shown[-10][0]:
            print(f"  … {len(shown) - 15} more …")
        print(f"  {step:>4}  " + "  ".join(naming.metric(values.get(name)).ljust(len(name)) for name in names))


def _missing(folder: SweepFolder, trial: TrialRow, objective: Objective | None) -> Iterator[str]:
    """What the results of the trial lack, here or in a tracker."""
    if trial.state is State.SUCCEEDED and (missing := unreported(objective, trial.metrics)):
        yield f"it {missing}"
    for title, trials in control.late(folder).items():
        if steps := trials.get(trial.trial_id):
            yield (
                f"{title} lacks what was reported of {naming.count(steps, 'step')} after later ones: "
                f"orchestrate sync {folder.argument} --force {trial.trial_id[:8]} sends the whole series as a new run"
            )


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
