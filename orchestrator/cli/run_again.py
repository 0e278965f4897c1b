"""How to run trials again, where it matters whether the code was edited since the sweep was planned.

`resubmit` runs the copy of the code that the sweep has; `sweep --rerun` takes the code as it is now.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from orchestrator import naming
from orchestrator.cli.common import sweep_command
from orchestrator.folder.code_changes import edited_since
from orchestrator.folder.paths import SweepFolder
from orchestrator.model.rows import PlanRow
from orchestrator.model.sweep import State


def edited(folder: SweepFolder, plan: PlanRow | None, used: Collection[str] | None = None) -> str:
    """The source files that were edited since, in words; "" if none was, or if the project is not here.

    `used`: the files that trials used which have succeeded; an edit of others makes none of them stale.
    """
    tree = str(plan.provenance.get("tree") or "") if plan is not None else ""
    names = edited_since(folder.code / tree, used) if tree else []
    return f"{naming.some(names)} changed since the sweep was planned" if names else ""


def todays(folder: SweepFolder, plan: PlanRow | None, trials: str) -> str:
    """The command that runs trials with today's code: those that `failed`, or are `stale`, or `all`."""
    rerun = ("--rerun", trials)
    return sweep_command(plan, folder, *rerun) if plan else " ".join(["orchestrate sweep FILE", *rerun])


def which(states: Collection[State]) -> str:
    """The choice of `sweep --rerun` that takes trials in these states again, once their code has changed."""
    taken = {"stale": {State.SUCCEEDED}, "failed": {State.FAILED, State.LOST}}
    return next((name for name, known in taken.items() if known.issuperset(states)), "all")


def notes(
    folder: SweepFolder, plan: PlanRow | None, states: Collection[State], used: Collection[str] | None
) -> list[str]:
    """What to know before trials run with the code of the sweep: how it and their data differ from today's.

    `used`: as for `edited`.
    """
    told, command = [], todays(folder, plan, which(states))
    if news := edited(folder, plan, used):
        told.append(f"{news}; these trials run with the code of then ({command} takes today's)")
    if plan is not None and not Path(plan.cwd).is_dir():
        gone = f"the project is not in {plan.cwd} any more, so these trials find no data beside the code"
        here = Path(plan.file).exists()
        told.append(f"{gone} ({f'{command} takes it from here' if here else 'run the sweep where the project is'})")
    return told


def hint(folder: SweepFolder, plan: PlanRow | None, resubmit: str, what: str) -> list[str]:
    """Lines that say how to run failed trials again. `resubmit`: the command with the code of the sweep."""
    news, with_todays = edited(folder, plan), todays(folder, plan, "failed")
    if not news:
        return [f"{resubmit}   runs {what} again (after an edit of the code: {with_todays})"]
    return [
        f"{news}: {with_todays} runs {what} with today's code",
        f"{resubmit}   runs {what} with the code of the sweep, as before",
    ]
