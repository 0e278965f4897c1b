"""Find a trainer that is a function, and how it must be called."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from orchestrator.errors import TrainerError, nearest
from orchestrator.model.trainer import Function


@lru_cache(maxsize=1)
def look_up(trainer: Function) -> tuple[Callable[..., Any], bool]:
    """The function, and whether it takes `run`. Cached, since all trials of a process have the same trainer."""
    function = find(trainer)
    return function, takes_run(function)


def find(trainer: Function) -> Callable[..., Any]:
    """The function itself; without its decorator if that is `@hydra.main`."""
    found: Any = importlib.import_module(trainer.module)
    for name in trainer.name.split("."):
        if not hasattr(found, name):
            near = nearest(name, dir(found))
            raise TrainerError(
                f"{trainer.module} has no {trainer.name!r}",
                where=str(trainer),
                fix=f"did you mean {near!r}?" if near else "name a function as module:function",
            )
        found = getattr(found, name)
    code = getattr(found, "__code__", None)
    if code is not None and code.co_filename.endswith(os.path.join("hydra", "main.py")):
        found = found.__wrapped__
    if not callable(found):
        raise TrainerError(
            f"{trainer.name!r} is of type {type(found).__name__}, not a function",
            where=str(trainer),
            fix="name a function as module:function",
        )
    return found  # type: ignore[no-any-return]


def takes_run(function: Callable[..., Any]) -> bool:
    """Whether the function is called with (cfg, run) rather than (cfg).

    It is if it has a second parameter; if that one has a default, only if its name is `run`.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(function).parameters.values())
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    several = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    second = positional[1] if len(positional) > 1 else None
    return several or (second is not None and (second.default is inspect.Parameter.empty or second.name == "run"))
