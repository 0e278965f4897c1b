"""A large sweep that is done, written by the real planner and the real writer: for benchmarks that read it."""

from __future__ import annotations

import time
from pathlib import Path

import expansion
from bench import check, query, say

from orchestrator.decide.standing import Standing
from orchestrator.folder.paths import create_folder
from orchestrator.language import planning
from orchestrator.manifest.attempts import Opening
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Started
from orchestrator.model.sweep import Objective, Resources, State

OBJECTIVE = Objective("loss")  # as in expansion.SWEEP
BLOCK = 1000  # trials in one transaction
DONE, FAILED = Outcome(State.SUCCEEDED), Outcome(State.FAILED, "exception", "KeyError: 'x'", "Traceback …", "a.py:1")


def write(root: Path, reports: int, code: str = "", failed: int = 0, limit: int | None = None) -> tuple[Path, Path]:
    """Plan the sweep of `expansion` below `root`, and record every trial as run; its file and its folder.

    `failed`: every so manieth trial failed. `limit`: so many trials at most, for a quick look.
    """
    started = time.perf_counter()
    file = expansion.write(root / "conf")
    (root / "trainer.py").write_text("def train(cfg, run):\n    run.report({'loss': 1.0})\n")
    overrides = () if limit is None else (f"lr=range(0,{limit})",)
    plan = planning.load(file, overrides)
    folder = create_folder(root / "runs", plan.spec.name)
    manifest = Manifest.open(folder)
    with manifest.transaction():
        number = manifest.plans.begin(plan.spec, str(file), overrides, {"tree": ""}, code, str(root))
        total = manifest.plans.add_trials(number, plan.trials())
        manifest.plans.finish(number, total, 0, 0)
    rows = [
        (step, 1.7e9 + step, f'{{"loss":{1 / (step + 1)!r},"accuracy":{step / reports!r}}}') for step in range(reports)
    ]
    for first in range(0, total, BLOCK):
        with manifest.transaction():
            for key in range(first + 1, min(first + BLOCK, total) + 1):
                _run(manifest, key, rows, code, bool(failed) and key % failed == 0)
    manifest.close()
    ((count,),) = query(folder.path, "SELECT count(*) FROM report")
    check(count == total * reports, f"{count} rows")
    size = folder.manifest.stat().st_size / 2**20
    say(f"{total:,} trials with {count:,} reports in {size:,.0f} MiB, in {time.perf_counter() - started:.0f} s")
    return file, folder.path


def _run(manifest: Manifest, key: int, rows: list[tuple[int, float, str]], code: str, failed: bool) -> None:
    """One trial, as the coordinator would have recorded it."""
    now = 1.7e9 + key
    manifest.attempts.open(Opening(key, 1, 1, 1, code, now, Resources(0.0, 1.0), "warn", {}))
    manifest.attempts.started(key, 1, Started(now, "node", "", key, (str(key % 4),), (), 1, "fork"))
    loss = (key * 7919 % 100_003) / 100_003
    if rows:
        manifest.attempts.reported(key, 1, rows)
    standing = Standing(OBJECTIVE, [(len(rows), {"loss": loss, "accuracy": 1 - loss})])
    manifest.attempts.progressed(key, 1, standing)
    manifest.attempts.close(key, 1, FAILED if failed else DONE, Ended(now + 1, entered=now + 0.1, left=now + 0.9))
