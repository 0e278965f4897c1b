"""What a trial runs, as `sweep.trainer` names it."""

from __future__ import annotations

from dataclasses import dataclass

CALLED = "a trainer is called as train(cfg, run) or train(cfg)"
GENERATOR = "replace its yield: run.report records numbers while it runs, and a returned number is the objective"


@dataclass(frozen=True)
class Function:
    """A function of a module, called with (cfg, run) or (cfg)."""

    module: str
    name: str  # may be dotted: a method of a class

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


# Every kind of trainer. `orchestrator.node.programs.table` says how each is run.
Trainer = Function


def parse(text: str) -> Trainer:
    """The trainer that this text names: "module:function"."""
    module, _, name = text.partition(":")
    return Function(module, name)
