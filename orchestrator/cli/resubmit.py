"""`orchestrate resubmit`: run failed trials again: the same trial, a new attempt."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from orchestrator import naming
from orchestrator.cli import run_again
from orchestrator.cli.common import TRIAL_HELP, Parser, find_sweep, sweep_of_trials, trial_in
from orchestrator.cli.key_value import key_value
from orchestrator.cli.sweep import add_run_options, conduct, executor_at, headline, run_options
from orchestrator.coordinator.opening import reopen
from orchestrator.coordinator.session import RunLimits, hold
from orchestrator.errors import ConfigError, NotFoundError, OrchestratorError
from orchestrator.folder.lock import holder_of
from orchestrator.folder.paths import SweepFolder, all_sweeps, runs_root
from orchestrator.folder.requests import send_request
from orchestrator.language import changes
from orchestrator.manifest.query import Query
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import State, TrialSpec


def parser() -> Parser:
    options = Parser(
        "resubmit",
        "[SWEEP] [--failed | --lost | --cause CAUSE | --trial ID …] [options]",
        "Run failed and lost trials again. On a running sweep they join its queue; else this command runs them.\n"
        "They run the code that the sweep was planned with; `orchestrate sweep … --rerun failed` takes today's.",
        [
            "resubmit",
            "resubmit address-tagging --cause oom --set sweep.resources.gpus=2",
            "resubmit --trial 6065 --trial 71ab",
            "resubmit best",
        ],
    )
    options.add_argument(
        "sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest); or best, last, SWEEP/best"
    )
    which = options.add_mutually_exclusive_group()
    which.add_argument("--failed", action="store_true", help="only failed trials")
    which.add_argument("--lost", action="store_true", help="only lost trials")
    which.add_argument("--cause", help="only trials that failed so (oom), or there (train.py:88): see `failures`")
    which.add_argument("--trial", action="append", metavar="TRIAL", help=f"{TRIAL_HELP}, however it ended; repeatable")
    options.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change what is no part of a trial: sweep.resources.gpus=2, sweep.timeout=2h, ignored keys; repeatable",
    )
    add_run_options(options)
    return options


def run(words: Sequence[str]) -> int:
    options = parser().read(words)
    folder = find(options)
    trials = chosen(options, folder)
    settings = checked(options.set, folder, trials)
    if not trials:
        print(f"{folder.name}: no trial to run again")
        return 0
    with Reader(folder) as reader:
        plan = reader.plan()
        found = reader.listed("state", Query(ids=trials, everything=True))
        notes = run_again.notes(folder, plan, {State(state) for (state,) in found}, reader.used(trials))
    for note in notes:
        print(f"note: {note}")
    if holder_of(folder) is not None:
        answer = send_request(folder, {"kind": "resubmit", "trials": trials, "set": settings})
        if answer is None:
            raise OrchestratorError("the running sweep does not answer", where=str(folder.path), fix="try again")
        print(f"{folder.name}: {answer}")
        return 0
    from orchestrator.executors.ray import environment

    address = environment.prepare(options.address)
    session = hold(folder)
    try:
        starts, here = executor_at(address)
        count = reopen(session, trials, settings, starts, here, wait=not options.no_wait)
        print(f"{naming.count(count, 'trial')} again. {headline(folder)}", flush=True)
        return conduct(session, RunLimits(options.max_concurrent, None), run_options(options))
    finally:
        session.release()


def find(options: argparse.Namespace) -> SweepFolder:
    """The sweep that was named, by itself or with its trials; else the latest one that has them."""
    if options.sweep and options.sweep.rpartition("/")[2] in naming.NAMED and not _is_sweep(options):
        if options.failed or options.lost or options.cause or options.trial:
            raise ConfigError(f"{options.sweep} is one trial", where="resubmit", fix="leave the other choices out")
        options.sweep, options.trial = None, [options.sweep]
    if options.sweep or not options.trial:
        return find_sweep(options)
    return sweep_of_trials(options.runs, options.trial, "--trial", "resubmit them one by one")


def _is_sweep(options: argparse.Namespace) -> bool:
    return any(folder.name == options.sweep for folder in all_sweeps(runs_root(options.runs)))


def checked(words: Sequence[str], folder: SweepFolder, trials: Sequence[str]) -> dict[str, Any]:
    """The settings by their keys. Raises ConfigError if one of the trials cannot have them."""
    settings = dict(key_value(word, "--set", "sweep.resources.gpus=2") for word in words)
    with Reader(folder) as reader:
        plan = reader.plan()
        if plan is not None and settings:
            changes.sweep(plan.spec, settings)
            for name in trials:
                changes.trial(plan.spec, TrialSpec(name, reader.trial(name).config, {}, 0, ""), settings)
    return settings


def chosen(options: argparse.Namespace, folder: SweepFolder) -> list[str]:
    """The trials that the options name."""
    with Reader(folder) as reader:
        if options.trial:
            return [trial_in(reader, name.rpartition("/")[2]).trial_id for name in options.trial]
        states = {State.FAILED} if options.failed else {State.LOST} if options.lost else {State.FAILED, State.LOST}
        rows = list(reader.trials(Query(states=sorted(states))))
    chosen = [row.trial_id for row in rows if options.cause in (None, row.cause, row.place)]
    if rows and not chosen:
        known = sorted({name for row in rows for name in (row.cause, row.place) if name})
        raise NotFoundError(f"no trial failed by {options.cause!r}", where="--cause", fix=f"one of {', '.join(known)}")
    return chosen
