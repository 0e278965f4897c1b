"""Isolated trial launches: no-op trials that need torch, one logical GPU each, on four GPUs and four CPUs.

Ours: from the first process's start to the last one's end with an empty process tree, as the manifest has them;
deterministic mode on. Ray Tune: from its first trial's start to its last one's end, noted by the trials; by default
(a new actor for each trial, which imports torch; few trials, since its rate does not depend on their number), and at
its best (`reuse_actors`, a class, no loggers, no checkpoints, no output), which isolates nothing. The limit: fork,
one small torch operation, `_exit`, on all cores, from a process with the same modules and settings.
"""

from __future__ import annotations

import os
import subprocess
import sys

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
    return float(subprocess.check_output([sys.executable, str(HERE / "bare.py"), "forks", str(count)], env=env))


def measure(options: Options) -> list[Row]:
    small, large, default = (40, 100, 8) if options.quick else (400, 1000, 32)
    with scratch() as root, cluster() as address:
        project = Project(root / "project", SWEEP, address=address)
        sides = {
            "limit": lambda: limit(large // 4),
            "small": lambda: ours(project, small),
            "reuse small": lambda: tune(address, "tune-reuse", small),
            "large": lambda: ours(project, large),
            "reuse large": lambda: tune(address, "tune-reuse", large),
            "tune": lambda: tune(address, "tune", default),
        }
        found = {name: median(values) for name, values in alternate(options.runs, sides, ["reuse large"]).items()}
    rows = []
    for size, trials, goal in (("small", small, 2.5), ("large", large, 10)):
        mine, bare, reuse, slow = found[size], found["limit"], found[f"reuse {size}"], found["tune"]
        what, best = f"{trials:,} isolated launches", "Tune, reuse_actors (not isolated)"
        rows += [
            Row(what, mine, "/s", "Tune, default", slow, bare, "", "≥ 60×; limit ≤ 1.5×",
                mine >= 60 * slow and bare <= 1.5 * mine),
            Row(what, mine, "/s", best, reuse, None, "", f"≥ {goal}×", mine >= goal * reuse),
        ]  # fmt: skip
    return rows


if __name__ == "__main__":
    main(measure)
