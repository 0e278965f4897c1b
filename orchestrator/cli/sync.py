"""`orchestrate sync`: replay to the sweep's trackers whatever has not arrived."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from orchestrator import naming
from orchestrator.cli.common import TRIAL_HELP, Parser, find_sweep, sweep_of_trials, trial_in
from orchestrator.errors import OrchestratorError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.tracking import control
from orchestrator.tracking.trackers import TRACKERS

ALL = "all"


def run(words: Sequence[str]) -> int:
    parser = Parser(
        "sync",
        "[SWEEP] [options]",
        "Send to W&B and other trackers whatever has not arrived there.",
        ["sync", "sync address-tagging", "sync --force 6065"],
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    parser.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="TRIAL",
        help=f"{TRIAL_HELP}: send its whole series as a new run, and tag the old one superseded; repeatable; "
        "`all`: every trial of which a tracker has dropped rows",
    )
    options = parser.read(words)
    named = [name for name in options.force if name != ALL]
    whole = options.sweep or not named
    folder = find_sweep(options) if whole else sweep_of_trials(options.runs, named, "--force", "name them one by one")
    names = control.synced(folder)
    trials = _forced(folder, options.force)
    failed: list[OrchestratorError] = []
    for name in names:  # one that fails does not keep the others waiting
        try:
            _sync(folder, name, f"{TRACKERS[name].title}: " if len(names) > 1 else "", trials)
        except OrchestratorError as error:
            failed.append(error)
    for line in dropped(folder):
        print(line)
    for other in failed[1:]:
        print(f"orchestrate: {other}", file=sys.stderr)
    if failed:
        raise failed[0]
    return 0


def dropped(folder: SweepFolder) -> Iterator[str]:
    """What to tell of trackers that have dropped rows: a line each."""
    for title, trials in control.late(folder).items():
        some = f"{len(trials)} runs" if len(trials) > 1 else f"the run of {next(iter(trials))[:8]}"
        which = ALL if len(trials) > 1 else next(iter(trials))[:8]
        yield (
            f"{title} has dropped rows of {some}: they were reported after later steps. The manifest has them; "
            f"orchestrate sync {folder.argument} --force {which} sends the whole series as a new run"
        )


def _forced(folder: SweepFolder, names: Sequence[str]) -> list[str]:
    """The trials that are named, by their whole ids. Raises NotFoundError."""
    with Reader(folder) as reader:
        found = [trial_in(reader, name.rpartition("/")[2]).trial_id for name in names if name != ALL]
    if ALL in names:
        found += [trial for trials in control.late(folder).values() for trial in trials]
    return list(dict.fromkeys(found))


def _sync(folder: SweepFolder, name: str, to: str, force: Sequence[str]) -> None:
    sent = control.sync(folder, name, lambda line: print(f"{to}{line}", flush=True), force)
    done = f"{naming.count(sent, 'run')} sent" if sent else "nothing to send"
    print(f"{folder.name}: {to}{done}")
