"""What the benchmarks share: alternating runs, rows of the table, a cluster, a project to run sweeps in."""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import children

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SLOTS = 4
T = TypeVar("T")


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Row:
    """One line: a median of ours beside a peer's and beside what the machine allows."""

    what: str
    ours: float
    unit: str  # "/s": more is better; anything else: less is
    peer: str = ""
    theirs: float | None = None
    limit: float | None = None
    limit_is: str = ""
    goal: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer ours is."""
        if not self.theirs or not self.ours:
            return None
        return self.ours / self.theirs if self.unit.endswith("/s") else self.theirs / self.ours

    @property
    def to_limit(self) -> float | None:
        """How many times worse than the limit ours is."""
        if not self.limit or not self.ours:
            return None
        return self.limit / self.ours if self.unit.endswith("/s") else self.ours / self.limit


HEAD = ("what", "ours", "peer", "ratio", "limit", "ratio to the limit", "goal", "")


def cells(row: Row) -> tuple[str, ...]:
    """A row in words. "LOST" where the peer is better, "missed" where the goal is."""
    ratio, to_limit = row.ratio, row.to_limit
    verdict = [] if row.met is None else ["met" if row.met else "**missed**"]
    if ratio is not None and ratio < 1:
        verdict.append("**LOST**")
    return (
        row.what,
        number(row.ours, row.unit),
        f"{number(row.theirs, row.unit)} {row.peer}".strip() if row.theirs is not None else row.peer or "–",
        f"{number(ratio, '')}×" if ratio is not None else "–",
        f"{number(row.limit, row.unit)} {row.limit_is}".strip() if row.limit is not None else "–",
        f"{to_limit:.2f}×" if to_limit is not None else "–",
        row.goal or "–",
        ", ".join(verdict),
    )


def number(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text + (unit if unit.startswith("/") else f" {unit}" if unit else "")


def table(rows: Sequence[Row]) -> str:
    """In Markdown, padded so that it reads in a terminal too."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


# ---------------------------------------------------------------- running


@dataclass(frozen=True)
class Options:
    runs: int
    seconds: float  # after which a side is not run again
    quick: bool
    ran: dict[str, int] = field(default_factory=dict)  # how often each side was run


def main(measure: Callable[[Options], list[Row]]) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5, help="alternating runs; medians are shown")
    parser.add_argument("--seconds", type=float, default=math.inf, help="a side that took so long is not run again")
    parser.add_argument("--quick", action="store_true", help="smaller, and once: whether it works")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    words = parser.parse_args()
    options = Options(1 if words.quick else words.runs, words.seconds, words.quick)
    children.interruptible()
    rows = measure(options)
    print(table(rows))
    if words.json:
        words.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "ran": options.ran}))


def alternate(options: Options, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Every side once, then every side again: what else the machine does meets all alike.

    What takes long is run less often: `options.seconds` says how long is enough.
    """
    found: dict[str, list[T]] = {name: [] for name in sides}
    spent = dict.fromkeys(sides, 0.0)
    for turn in range(options.runs):
        for name, side in sides.items():
            if spent[name] >= options.seconds:
                continue
            started = time.perf_counter()
            found[name].append(side())
            seconds = time.perf_counter() - started
            spent[name] += seconds
            shown = found[name][-1]
            text = f"{shown:.4g}" if isinstance(shown, (int, float)) else ""
            say(f"run {turn + 1}  {name}  {text}  ({seconds:.1f} s)")
    for name, values in found.items():
        options.ran[name] = min(len(values), options.ran.get(name, len(values)))
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


median = statistics.median


def check(condition: object, text: str) -> None:
    """A benchmark of something that went wrong is none."""
    if not condition:
        raise SystemExit(f"wrong result: {text}")


# ---------------------------------------------------------------- where trials run


@contextmanager
def cluster(cpus: int = SLOTS, gpus: int = SLOTS) -> Iterator[str]:
    """A Ray node of its own with logical GPUs; its address. Commands find its token in the environment."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - its name
    os.environ.pop("RAY_ADDRESS", None)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False, "object_store_memory": 200 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=head)
    children.interruptible()  # Ray puts handlers of its own
    try:
        yield made.address
    finally:
        made.shutdown()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on a real disk: durability has its price there."""
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as folder:
        yield Path(folder)


@dataclass
class Project:
    """A folder with a trainer and a sweep file, and the command line run in it."""

    root: Path
    sweep_file: str
    trainer: str = "work.py"
    address: str | None = None
    count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        (self.root / "conf").mkdir(parents=True)
        (self.root / "conf" / "sweep.yaml").write_text(self.sweep_file)
        shutil.copy(HERE / self.trainer, self.root)

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command, which ends with the block."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
        if self.address:
            env["RAY_ADDRESS"] = self.address
        command = [sys.executable, "-m", "orchestrator.cli", *words]
        how = {"cwd": self.root, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with children.child(command, **how) as process:
            yield process

    def run(self, *words: str) -> str:
        """The output of a command that must succeed."""
        with self.started(*words) as process:
            out, _ = process.communicate()
        check(process.returncode == 0, f"exit code {process.returncode} of {' '.join(words)}\n{out}")
        return out

    def sweep(self, *overrides: str) -> str:
        """Run the sweep under a name of its own, which is returned."""
        name = self.next_name()
        self.run("sweep", "conf/sweep.yaml", f"sweep.name={name}", *overrides)
        return name

    def next_name(self) -> str:
        self.count += 1
        return f"sweep-{self.count}"

    def query(self, name: str, text: str) -> list[tuple[Any, ...]]:
        return query(self.root / "runs" / name, text)

    def check(self, name: str, trials: int, rows: int) -> None:
        """Every trial succeeded at its first attempt, in a process of its own; every row is there once."""
        states = dict(self.query(name, "SELECT state, count(*) FROM trials GROUP BY 1"))
        check(states == {"SUCCEEDED": trials}, f"{states} instead of {trials} successes")
        ((attempts, pids),) = self.query(name, "SELECT count(*), count(DISTINCT pid) FROM attempt")
        check(attempts == pids == trials, f"{attempts} attempts in {pids} processes instead of {trials}")
        counted = "SELECT count(*), count(DISTINCT trial_id || ' ' || step) FROM reports"
        ((found, steps),) = self.query(name, counted)
        check(found == steps == rows, f"{found} rows of {steps} steps instead of {rows}")

    def times(self, name: str) -> list[Span]:
        """When each trial's `train` began and ended, and where."""
        found = self.query(name, "SELECT node || gpus, entered, returned FROM attempt")
        return [Span(*row) for row in found]


def query(folder: Path, text: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{folder / 'manifest.db'}?mode=ro", uri=True, timeout=60)) as db:
        return db.execute(text).fetchall()


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Span:
    """One trial's `train`, in seconds since the epoch."""

    slot: str
    start: float
    end: float


def span(spans: Sequence[Span]) -> float:
    """Seconds from the first start to the last end."""
    return max(one.end for one in spans) - min(one.start for one in spans)


def gap(spans: Sequence[Span]) -> float:
    """The median time in ms from the end of one trial to the start of the next on its slot."""
    ordered = sorted(spans, key=lambda one: (one.slot, one.start))
    pairs = pairwise(ordered)
    return 1000 * median(after.start - before.end for before, after in pairs if before.slot == after.slot)


def peer(address: str, *words: object) -> list[Span]:
    """Run trials under a peer: `peers.py` tells what; the times its trials noted. All must have succeeded."""
    with scratch() as folder:
        env = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(HERE / "peers.py"), *map(str, words), "--folder", str(folder)]
        done = children.finished(command, env=env, cwd=folder)
        check(done.returncode == 0, f"{' '.join(map(str, words))}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
        lines = (folder / "times").read_text().splitlines()
        return [Span(slot, float(start), float(end)) for slot, start, end in map(str.split, lines)]
