"""The first trial: from the command to `train` entered, with a torch trainer and nothing of ours running.

The limit is a process that does `ray.init` as we do it, then `import torch` and the same modules, and nothing else.
The page cache is warm for both; there is one slot, so that one warm parent is made.
"""

from __future__ import annotations

import os
import sys
import time

import children
from bench import HERE, Options, Project, Row, alternate, main, median, scratch

SWEEP = """
seconds: 0.0
steps: 0
seed: 1
sweep:
  trainer: work:train
  axes: {seed: [1]}
  resources: {gpus: 0, cpus: 2}
  tracking: {wandb: false}
"""


def ours(project: Project) -> float:
    before = time.time()
    name = project.sweep()
    project.check(name, 1, 1)
    return project.times(name)[0].start - before


def bare() -> float:
    before = time.time()
    return float(children.output([sys.executable, str(HERE / "bare.py"), "first"])) - before


def measure(options: Options) -> list[Row]:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)
    with scratch() as root:
        project = Project(root / "project", SWEEP)
        found = alternate(options, {"ours": lambda: ours(project), "bare": bare})
    mine, limit = median(found["ours"]), median(found["bare"])
    return [
        Row("first trial", mine, "s", "", None, limit, "(bare)", "limit + 1.5 s", mine <= limit + 1.5),
    ]


if __name__ == "__main__":
    main(measure)
