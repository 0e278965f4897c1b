"""Reading: the commands that look, as whole processes, on a manifest of 100,000 trials and 10 million reports.

The manifest is written by the real planner and writer, and deleted afterwards. The limit is what a Python that
imports sqlite3 and ends takes. The page cache is warm.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import children
import large
from bench import ROOT, Options, Row, alternate, check, main, median, query, scratch


def command(root: Path, words: tuple[str, ...], expected: str) -> float:
    """Seconds that the command lasts; it must say what is expected."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = children.finished([sys.executable, "-m", "orchestrator.cli", *words], cwd=root, env=env)
    seconds = time.perf_counter() - started
    check(done.returncode == 0 and expected in done.stdout, f"{words}: {done.stdout[:500]}{done.stderr[-2000:]}")
    return seconds


def bare() -> float:
    started = time.perf_counter()
    children.output([sys.executable, "-c", "import sqlite3"])
    return time.perf_counter() - started


def measure(options: Options) -> list[Row]:
    with scratch() as root:
        _, folder = large.write(root, reports=100, failed=50, limit=1 if options.quick else None)
        ((total,),) = query(folder, "SELECT count(*) FROM trials")
        ((best,),) = query(folder, "SELECT trial_id FROM trials WHERE state = 'SUCCEEDED' ORDER BY objective LIMIT 1")
        ((rows,),) = query(folder, f"SELECT count(*) FROM reports WHERE trial_id = '{best}'")
        check(rows == 100, f"{rows} rows")
        commands = {
            "status": (("status",), f"{total}/{total}", 0.5),
            "status --json": (("status", "--json"), best, 0.5),
            "trials --sort loss --limit 20": (("trials", "--sort", "loss", "--limit", "20"), best[:8], 1.0),
            "trials --sort loss": (("trials", "--sort", "loss"), best[:8], 1.0),
            "trials --json": (("trials", "--json"), best, 1.0),
            "trials --format csv": (("trials", "--format", "csv"), best, 1.0),
            "trials --state failed --limit 20": (("trials", "--state", "failed", "--limit", "20"), "KeyError", 1.0),
            "failures": (("failures",), "KeyError", 1.0),
            "show": (("show", best), json.dumps(best)[1:-1], 1.0),
            "--help": (("--help",), "usage", 0.2),
        }
        sides = {name: partial(command, root, words, expected) for name, (words, expected, _) in commands.items()}
        found = {name: median(times) for name, times in alternate(options, {**sides, "": bare}).items()}
    return [
        Row(f"orchestrate {name}", found[name], "s", "", None, found[""], "(bare Python)", f"< {goal:g} s",
            found[name] < goal)
        for name, (_, _, goal) in commands.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main(measure)
