"""Sixty-four trials of one second on four slots: makespan, and how long a slot idles between two trials.

Makespan: from the first `train` entered to the last one left; the ideal is 16 s. Start-up is apart (see first.py).
The idle gap is measured with trials of half a second: from one `train` left to the next entered on its slot, median.
Every trial needs torch. Peers: Ray Tune by default, and at its best (`reuse_actors`, a class, no loggers), which
isolates nothing; Hydra's joblib launcher (four processes, which run many trials each) and its ray launcher.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench import SLOTS, Options, Project, Row, Span, alternate, check, cluster, gap, main, median, peer, scratch, span
from launches import SWEEP

PEERS = {
    "tune": "Tune, default",
    "tune-best": "Tune at its best (not isolated)",
    "hydra-joblib": "Hydra joblib (not isolated)",
    "hydra-ray": "Hydra ray",
}


def ours(project: Project, trials: int, seconds: float) -> list[Span]:
    name = project.sweep(f"x=range(0,{trials})", f"seconds={seconds}")
    project.check(name, trials, trials)
    return project.times(name)


def theirs(address: str, who: str, trials: int, seconds: float) -> list[Span]:
    spans = peer(address, who, "--trials", trials, "--seconds", seconds)
    check(len(spans) == trials, f"{len(spans)} trials of {who}")
    return spans


def compare(options: Options, project: Project, trials: int, seconds: float) -> dict[str, list[list[Span]]]:
    """The spans of every run of ours and of each peer."""
    address = project.address or ""
    sides: dict[str, Callable[[], list[Span]]] = {"ours": partial(ours, project, trials, seconds)}
    for who in PEERS:
        sides[who] = partial(theirs, address, who, trials, seconds)
    return alternate(options, sides)


def measure(options: Options) -> list[Row]:
    trials = 16 if options.quick else 64
    with scratch() as root, cluster() as address:
        project = Project(root / "project", SWEEP, address=address)
        long = {who: median(map(span, runs)) for who, runs in compare(options, project, trials, 1.0).items()}
        short = {who: median(map(gap, runs)) for who, runs in compare(options, project, 16, 0.5).items()}
    ideal = trials / SLOTS
    rows = [
        Row(f"makespan, {trials} × 1 s on {SLOTS} slots", long["ours"], "s", name, long[who], ideal, "(ideal)",
            "limit ≤ 1.05×", long["ours"] <= 1.05 * ideal)
        for who, name in PEERS.items()
    ]  # fmt: skip
    for who, name in PEERS.items():
        goal, met = "< 60 ms", short["ours"] < 60
        if who == "tune":
            goal, met = "< 60 ms; ≥ 30×", met and short["tune"] >= 30 * short["ours"]
        rows.append(Row("idle gap of a slot", short["ours"], "ms", name, short[who], None, "", goal, met))
    return rows


if __name__ == "__main__":
    main(measure)
