"""`orchestrate try`: one trial here, in this terminal; no Ray, no manifest; `breakpoint()` works."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator import naming
from orchestrator.cli.common import Parser
from orchestrator.decide.lifecycle import classify
from orchestrator.language import planning
from orchestrator.model.order import Order
from orchestrator.model.sweep import State
from orchestrator.node.inside.inline import run_inline


def parser() -> Parser:
    options = Parser(
        "try",
        "FILE [KEY=VALUE …] [options]",
        "Run one trial here and now: the axes take what KEY=VALUE says, else their first value.\n"
        "Nothing is recorded; breakpoint() works.",
        ["try conf/sweep.yaml", "try conf/sweep.yaml model=lstm optimizer.lr=0.1"],
    )
    options.add_argument("file", type=Path, metavar="FILE", help="the sweep file")
    options.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options.add_argument("--config-dir", type=Path, metavar="DIR")
    return options


def run(words: Sequence[str]) -> int:
    options = parser().read(words)
    spec, point = planning.load_first_trial(options.file, options.overrides, options.config_dir)
    resources, here = point.resources, str(Path.cwd())
    order = replace(
        Order.of(spec, point),
        import_path=(here,),
        cwd=here,
        threads=1 if resources.cpus == "auto" else max(1, int(resources.cpus)),
        gpus=1.0 if resources.gpus == "auto" else float(resources.gpus),
        start="spawn",
    )
    print(f"{point.trial_id}  {naming.label(point.overrides)}", flush=True)
    ended = run_inline(order, lambda line: print(line, flush=True))
    outcome = classify(ended)
    if outcome.state is State.SUCCEEDED:
        return 0
    if ended.failure is None:
        print(outcome.message, file=sys.stderr)
    return 1
