"""All benchmarks, one table, and `docs/benchmarks.md`. `make bench`, or `make bench BENCH="--only launches,first"`.

Each runs in a process of its own. Rows are kept in `build/benchmarks`, so that the page can be made of several
sittings: a benchmark that is not run again keeps its rows, with their date.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import children
from bench import HERE, ROOT, Row, table

NAMES = ("launches", "makespan", "first", "reports", "tracker", "expansion", "growth", "reading", "resume")
KEPT, PAGE = ROOT / "build" / "benchmarks", ROOT / "docs" / "benchmarks.md"
PACKAGES = ("ray", "torch", "hydra-core", "hydra-joblib-launcher", "hydra-ray-launcher", "wandb")
HEAD = """# Benchmarks

`make bench` installs the peers into an environment of their own (`.bench-venv`, the extra `bench`), runs everything
below, and writes this page. One alone: `.bench-venv/bin/python tests/benchmarks/launches.py --runs 5`.

Every number is the median of alternating runs (each side once, then each again), `--runs` of them, five unless told
otherwise: an hour in all. With `--seconds`, a side that has taken so long is not run again. Each part says how often
each side was run, and checks what came out before it prints a number: states, attempts, processes, rows. *ratio*: how
many times better than the peer; *ratio to the limit*: how many times worse than what the machine, the ideal or the bare
parts allow. **LOST**: the peer is better. **missed**: our own goal is. *load*: what else the machine did when a part
began, less than 1 on a quiet one; under load compare ratios only.
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=math.inf, help="a side that took so long is not run again")
    parser.add_argument("--quick", action="store_true", help="smaller, once, and the page is not written")
    parser.add_argument("--only", default=",".join(NAMES), help="names, with commas")
    options = parser.parse_args()
    children.interruptible()
    KEPT.mkdir(parents=True, exist_ok=True)
    failed = [name for name in options.only.split(",") if not run(name, options)]
    kept = {name: path(name, options.quick) for name in NAMES}
    found = {name: json.loads(file.read_text()) for name, file in kept.items() if file.exists()}
    parts = {name: part for name, part in found.items() if "ran" in part}  # an earlier version kept less
    print(table([Row(**row) for part in parts.values() for row in part["rows"]]))
    if not options.quick:
        PAGE.write_text(page(parts), encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def path(name: str, quick: bool) -> Path:
    return KEPT / f"{name}{'-quick' if quick else ''}.json"


def run(name: str, options: argparse.Namespace) -> bool:
    """Run one and keep its rows; whether it went well."""
    print(f"== {name}", file=sys.stderr, flush=True)
    draft = KEPT / f"{name}.draft"
    words = [sys.executable, str(HERE / f"{name}.py"), "--json", str(draft)]
    words += ["--runs", str(options.runs), "--seconds", str(options.seconds), *["--quick"] * options.quick]
    started, load = time.time(), os.getloadavg()[0]
    with children.child(words, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        if process.wait():
            return False
    facts = {"runs": options.runs, "seconds": options.seconds, "minutes": (time.time() - started) / 60, "load": load}
    found, at = json.loads(draft.read_text()), time.strftime("%Y-%m-%d %H:%M")
    path(name, options.quick).write_text(json.dumps({**found, "at": at, "commit": commit(), **facts}))
    draft.unlink()
    return True


def commit() -> str:
    return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()


def page(parts: dict[str, dict[str, object]]) -> str:
    """The page: the machine, then each part with its method."""
    texts = [HEAD, machine()]
    for name, part in parts.items():
        method = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""
        rows = [Row(**row) for row in part["rows"]]  # type: ignore[attr-defined]
        command = f"tests/benchmarks/{name}.py --runs {part['runs']}"
        command += f" --seconds {part['seconds']:g}" if math.isfinite(part["seconds"]) else ""
        load = f"{part['load']:.1f} when it began" if "load" in part else "not noted"
        when = f"`{command}`, {part['at']}, commit {part['commit']}, {part['minutes']:.0f} minutes, load {load}."
        ran = ", ".join(f"{side} {count}×" for side, count in part["ran"].items())  # type: ignore[attr-defined]
        texts.append(f"## {name}\n\n{method}\n\n{when}\nRuns: {ran}.\n\n{table(rows)}\n")
    return "\n".join(texts)


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    cores = len(os.sched_getaffinity(0))
    return (
        f"Machine: {cores} cores ({processor()}), {memory:.0f} GiB, no GPU (logical GPUs in Ray), "
        f"Linux {platform.release()}, Python {platform.python_version()}.\nVersions: {versions}.\n"
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
