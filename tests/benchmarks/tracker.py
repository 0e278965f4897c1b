"""What a tracker costs: sixty-four trials of one second with twenty reports each, W&B offline on and off.

Makespan, from the first `train` entered to the last one left; then, apart, how long the command lasts after that.
"""

from __future__ import annotations

import time

from bench import Options, Project, Row, alternate, check, cluster, main, median, scratch, span
from launches import SWEEP


def ours(project: Project, trials: int, wandb: bool) -> tuple[float, float]:
    """(makespan, seconds from the last end to the command's end)."""
    tracking = "sweep.tracking={wandb:{project:bench}}" if wandb else "sweep.tracking={wandb:false}"
    name = project.sweep(f"x=range(0,{trials})", "seconds=1.0", "steps=20", tracking)
    over = time.time()
    project.check(name, trials, trials * 21)
    runs = len(list((project.root / "runs" / name).glob("wandb/**/*.wandb")))
    check(runs == (trials if wandb else 0), f"{runs} offline runs")
    times = project.times(name)
    return span(times), over - max(one.end for one in times)


def measure(options: Options) -> list[Row]:
    trials = 16 if options.quick else 64
    with scratch() as root, cluster() as address:
        project = Project(root / "project", SWEEP, address=address)
        sides = {"off": lambda: ours(project, trials, False), "on": lambda: ours(project, trials, True)}
        found = alternate(options, sides)
    (off, quiet), (on, drain) = (tuple(map(median, zip(*found[side], strict=True))) for side in ("off", "on"))
    goal = "limit ≤ 1.03×"
    return [
        Row(f"makespan, {trials} × 1 s, W&B offline", on, "s", "", None, off, "(without W&B)", goal, on <= 1.03 * off),
        Row("from the last trial's end to the command's", drain, "s", "", None, quiet, "(without W&B)"),
    ]


if __name__ == "__main__":
    main(measure)
