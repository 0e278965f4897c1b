"""How long 100,000 trials take to plan: four groups and three value axes. `python tests/benchmarks/plan.py`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from orchestrator import planning

OPTIONS = {"model": 3, "optimizer": 2, "data": 3, "schedule": 3}
HEAD = "defaults: [{model: o0}, {optimizer: o0}, {data: o0}, {schedule: o0}, _self_]\nseed: 1\nlr: 0.1\n"
AXES = "  lr: range(0, 0.43, 0.01)\n  batch: range(0, 22)\n  seed: [1, 2]\n"


def main() -> None:
    """Write a config folder, plan its sweep twice, and print the times."""
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder)
        groups = ""
        for group, count in OPTIONS.items():
            (conf / group).mkdir()
            groups += f"  {group}: glob(*)\n"
            for option in range(count):
                (conf / group / f"o{option}.yaml").write_text(f"name: {group}{option}\nlr: ${{lr}}\nlayers: [1, 2]\n")
        rest = f"batch: 1\nnote: ${{lr}}-${{seed}}\nsweep:\n trainer: a:b\n axes:\n{groups}{AXES}"
        (conf / "sweep.yaml").write_text(HEAD + rest)
        started = time.perf_counter()
        plan = planning.load(conf / "sweep.yaml")
        for turn in ("first", "second"):
            count = sum(1 for _ in plan.trials())
            print(f"{turn} pass: {count:,} trials, {time.perf_counter() - started:.2f} s")
            started = time.perf_counter()


if __name__ == "__main__":
    main()
