"""How each kind of trainer is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.model.trainer import Function, Trainer
from orchestrator.node.programs import function

# What a trial calls with its config, and whether it takes `run` as well.
Program = tuple[Callable[..., Any], bool]

PROGRAMS: dict[type[Trainer], Callable[[Trainer], Program]] = {Function: function.look_up}


def look_up(trainer: Trainer) -> Program:
    """What a trial of this trainer calls. May import the trainer's module."""
    return PROGRAMS[type(trainer)](trainer)
