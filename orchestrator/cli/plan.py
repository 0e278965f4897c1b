"""`orchestrate plan`: prints what `sweep` would run. It runs and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from orchestrator import naming
from orchestrator.cli.common import Parser, positive, print_json
from orchestrator.folder.code_changes import CodeFiles
from orchestrator.folder.lock import holder_of
from orchestrator.folder.paths import SweepFolder, runs_root
from orchestrator.language import planning, trainer_source
from orchestrator.language.plan_changes import SAMPLE, in_words
from orchestrator.language.planning import SweepPlan
from orchestrator.manifest.reader import Reader, TrialStatus
from orchestrator.model import trainer
from orchestrator.model.rows import LastPlan
from orchestrator.model.sweep import State, TrialSpec
from orchestrator.provenance.code import code_diff, code_today, difference, source_hash

SHOWN = 5
EXAMPLES = ("plan conf/sweep.yaml", "plan conf/sweep.yaml model=lstm --limit 50", "plan conf/sweep.yaml --json | head")
STALE, RESEEDED = "stale: succeeded with other code", "succeeded with another seed (--rerun stale)"
STATES = ("succeeded", "stopped early", STALE, RESEEDED, "failed", "lost", "running", "to run")


def parser() -> Parser:
    options = Parser(
        "plan", "FILE [KEY=VALUE …] [options]", "Print what `sweep` would run, without running it.", EXAMPLES
    )
    options.add_argument("file", type=Path, metavar="FILE", help="the sweep file")
    options.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options.add_argument("--config-dir", type=Path, metavar="DIR")
    options.add_argument("--limit", type=positive, metavar="N", help=f"show the first N trials (default {SHOWN})")
    options.add_argument(
        "--code-diff", action="store_true", help="show the changes of the code that make results stale"
    )
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
    if options.code_diff:
        known = _Known(folder, plan)
        for line in code_diff(known.differing, known.today):
            print(line)
        return 0
    _print(plan, folder, options.limit or SHOWN)
    return 0


def _print(plan: SweepPlan, folder: SweepFolder, shown: int) -> None:
    sweep = _Known(folder, plan)
    states: Counter[str] = Counter()
    first: list[TrialSpec] = []
    for trial in plan.trials():
        states[sweep.describe(trial)] += 1
        if len(first) < max(shown, SAMPLE):
            first.append(trial)
    summary = plan.summary()
    print(f"{plan.spec.name}: {naming.count(summary.total, 'trial')} of {plan.spec.trainer}")
    for group, options in summary.by_choice.items():
        print(f"  {group}: " + ", ".join(f"{option} {count}" for option, count in options.items()))
    if summary.excluded:
        print(f"  {summary.excluded} excluded")
    if summary.duplicates:
        print(f"  {naming.count(summary.duplicates, 'duplicate')}, run once")
    print("  " + ", ".join(f"{states[state]} {state}" for state in STATES if states[state]))
    if states[STALE]:
        changes = difference(sweep.differing, sweep.today) or "the code"
        print(f"  changed since: {changes}  (--code-diff shows how; sweep --rerun stale runs them again)")
    for line in (*in_words(sweep.last(), plan.spec, first), *summary.warnings):
        print(f"  note: {line}")
    print()
    for trial in first[:shown]:
        print(f"  {trial.trial_id}  {naming.label(trial.overrides)}")
    if summary.total > shown:
        print(f"  … and {summary.total - shown} more")


class _Known:
    """What the manifest says of trials, compared with the project's code as it is."""

    def __init__(self, folder: SweepFolder, plan: SweepPlan) -> None:
        self.today = code_today(Path.cwd(), folder.path.parent, plan.spec.code)
        self.differing: dict[str, CodeFiles] = {}  # files whose change has made results stale
        self._spec = plan.spec
        self._live = holder_of(folder) is not None
        self._trials: dict[str, TrialStatus] = {}
        self._sample: list[TrialSpec] = []
        if folder.manifest.is_file():
            with Reader(folder) as reader:
                reader.compare_with_today(self.today, source_hash(self.today.digests, self.today.live))
                self._trials = {status.trial_id: status for status in reader.statuses()}
                self.differing = reader.stale_code(self.today)
                self._sample = reader.specs(SAMPLE)
                before = reader.plan()
                self._spec = before.spec if before else plan.spec
        self._total = sum(status.current for status in self._trials.values())

    def describe(self, trial: TrialSpec) -> str:
        """How a trial of the new plan stands; each is asked for once."""
        known = self._trials.pop(trial.trial_id, None)
        return "to run" if known is None else _describe(known, trial.seed, self._live)

    def last(self) -> LastPlan:
        """The last plan, and what is left of it."""
        leaving = [status for status in self._trials.values() if status.current]
        done = sum(status.state in (State.SUCCEEDED, State.STOPPED) for status in leaving)
        return LastPlan(self._spec, self._total, len(leaving), done, self._sample)


def _describe(known: TrialStatus, seed: int, live: bool) -> str:
    """`live`: whether the sweep has a coordinator; what ran when it died runs again."""
    if known.state in (State.SUCCEEDED, State.STOPPED):
        return RESEEDED if known.seed != seed else STALE if known.stale else known.state.word
    if known.state in (State.FAILED, State.LOST):
        return known.state.word
    return "running" if known.state.open and live else "to run"
