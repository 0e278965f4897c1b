"""Expansion: 100,000 trials of four groups and three value axes, from the sweep file to trials with ids.

The second pass finds everything warm; the command makes one. Memory: what a whole pass adds at most. Hydra's
`compose` gives the same configs one by one: a sample, extrapolated.
"""

from __future__ import annotations

import itertools
import random
import time
import tracemalloc
from pathlib import Path

from bench import Options, Row, alternate, check, main, median, scratch

from orchestrator.language import planning

TRIALS = 102_168
OPTIONS = {"model": 3, "optimizer": 2, "data": 3, "schedule": 3}
HEAD = "defaults: [{model: o0}, {optimizer: o0}, {data: o0}, {schedule: o0}, _self_]\nseed: 1\nlr: 0.1\n"
AXES = "  lr: range(0, 0.43, 0.01)\n  batch: range(0, 22)\n  seed: [1, 2]\n"
SWEEP = " name: large\n trainer: trainer:train\n objective: {metric: loss}\n tracking: {wandb: false}\n"


def write(conf: Path) -> Path:
    """A config folder and its sweep file."""
    conf.mkdir(parents=True, exist_ok=True)
    groups = ""
    for group, count in OPTIONS.items():
        (conf / group).mkdir()
        groups += f"  {group}: glob(*)\n"
        for option in range(count):
            (conf / group / f"o{option}.yaml").write_text(f"name: {group}{option}\nlr: ${{lr}}\nlayers: [1, 2]\n")
    rest = f"batch: 1\nnote: ${{lr}}-${{seed}}\nsweep:\n{SWEEP} resources: {{gpus: 0, cpus: 1}}\n axes:\n{groups}{AXES}"
    file = conf / "sweep.yaml"
    file.write_text(HEAD + rest)
    return file


def ours(file: Path) -> float:
    started = time.perf_counter()
    count = sum(1 for _ in planning.load(file).trials())
    seconds = time.perf_counter() - started
    check(count == TRIALS, f"{count} trials instead of {TRIALS}")
    return seconds


def memory(file: Path) -> float:
    """Bytes a trial that one pass holds at its peak, beyond those of the file itself."""
    plan = planning.load(file)
    plan.first_trial()
    tracemalloc.start()
    count = sum(1 for _ in itertools.islice(plan.trials(), 50_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / count


def hydra(file: Path, sample: int) -> float:
    """Seconds for all trials, from a sample; each sampled config is compared with ours."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    chosen = set(random.Random(0).sample(range(TRIALS), sample))
    trials = [trial for number, trial in enumerate(planning.load(file).trials()) if number in chosen]
    seconds = 0.0
    with initialize_config_dir(str(file.parent), version_base=None):
        for trial in trials:
            words = [f"{key}={value}" for key, value in trial.overrides.items()]
            started = time.perf_counter()
            config = OmegaConf.to_container(compose("sweep", words), resolve=True)
            seconds += time.perf_counter() - started
            check({key: value for key, value in config.items() if key != "sweep"} == trial.config, str(words))
    return seconds / sample * TRIALS


def measure(options: Options) -> list[Row]:
    sample = 10 if options.quick else 100
    with scratch() as root:
        file = write(root / "conf")
        found = alternate(options, {"ours": lambda: ours(file), "hydra": lambda: hydra(file, sample)})
        held = memory(file)
    mine, theirs = median(found["ours"]), median(found["hydra"])
    peer = f"Hydra compose ({sample} composed, extrapolated)"
    return [
        Row(f"expansion of {TRIALS:,} trials", mine, "s", peer, theirs, goal="≤ 3 s", met=mine <= 3),
        Row("memory of a pass, bytes a trial", held, "B", goal="< 200 B (flat)", met=held < 200),
    ]


if __name__ == "__main__":
    main(measure)
