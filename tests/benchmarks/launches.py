"""Isolated trial launches: no-op trials that need torch, one logical GPU each, on four GPUs and four CPUs.

Ours: from the first process's start to the last one's end with an empty process tree, as the manifest has them;
deterministic mode on. Ray Tune: from its first trial's start to its last one's end, noted by the trials; by default
(a new actor for each trial, which imports torch; few trials, since its rate does not depend on their number), with
`reuse_actors=True` and all else by default, and at its best (reused actors, no loggers, no checkpoints, no output);
reused actors isolate nothing. The limit: fork, one small torch operation, `_exit`, on all cores, from a process with
the same modules and settings, which has done the same small operations before, as the one has that our trials are
forked from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

import children
from bench import HERE, ROOT, Options, Project, Row, alternate, check, cluster, main, median, peer, scratch, span

SWEEP = """
x: 0
seconds: 0.0
steps: 0
seed: 1
sweep:
  trainer: work:train
  axes: {x: "range(0, 1000)"}
  resources: {gpus: 1, cpus: 1}
  tracking: {wandb: false}
"""


REUSING = {"tune-reuse": "Tune, reuse_actors (not isolated)", "tune-best": "Tune at its best (not isolated)"}


def ours(project: Project, trials: int) -> float:
    name = project.sweep(f"x=range(0,{trials})")
    project.check(name, trials, trials)
    ((start, end),) = project.query(name, "SELECT min(started), max(ended) FROM attempt")
    return trials / (end - start)


def tune(address: str, who: str, trials: int) -> float:
    spans = peer(address, who, "--trials", trials)
    check(len(spans) == trials, f"{len(spans)} trials of Tune")
    return trials / span(spans)


def limit(count: int) -> float:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return float(children.output([sys.executable, str(HERE / "bare.py"), "forks", str(count)], env=env))


def measure(options: Options) -> list[Row]:
    small, large, default = (40, 100, 8) if options.quick else (400, 1000, 24)
    with scratch() as root, cluster() as address:
        project = Project(root / "project", SWEEP, address=address)
        sides: dict[str, Callable[[], float]] = {"limit": partial(limit, large // 4)}
        for trials in (small, large):
            sides[f"ours {trials}"] = partial(ours, project, trials)
            for who in REUSING:
                sides[f"{who} {trials}"] = partial(tune, address, who, trials)
        sides["tune"] = partial(tune, address, "tune", default)
        found = {name: median(values) for name, values in alternate(options, sides).items()}
    rows = []
    for trials, goal in ((small, 2.5), (large, 10.0)):
        mine, bare, what = found[f"ours {trials}"], found["limit"], f"{trials:,} isolated launches"
        met = mine >= 60 * found["tune"] and bare <= 1.5 * mine
        rows.append(Row(what, mine, "/s", "Tune, default", found["tune"], bare, "", "≥ 60×; limit ≤ 1.5×", met))
        for who, name in REUSING.items():
            theirs = found[f"{who} {trials}"]
            wanted, met = (f"≥ {goal:g}×", mine >= goal * theirs) if who == "tune-reuse" else ("", None)
            rows.append(Row(what, mine, "/s", name, theirs, None, "", wanted, met))
    return rows


if __name__ == "__main__":
    main(measure)
