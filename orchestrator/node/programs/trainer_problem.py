"""Describe what is wrong with a trainer: it cannot be imported, or it cannot be called."""

from __future__ import annotations

import importlib
import inspect
import sysconfig
import traceback
from pathlib import Path
from types import CellType, FunctionType

from orchestrator.errors import nearest
from orchestrator.files import PACKAGE
from orchestrator.model.trainer import CALLED, GENERATOR, Function
from orchestrator.node.programs.function import takes_run
from orchestrator.text import message_of, shortened

_LONGEST = 2_000  # characters of a message
_COMMANDS = ("click", "rich_click", "typer")  # packages whose commands can be called, and then parse a command line


def about(trainer: Function, error: BaseException | None) -> dict[str, str]:
    """The problem, under "what" and perhaps "fix"; empty if there is none. `error`: what the import raised."""
    module_name, name = trainer.module, trainer.name
    if error is not None:
        return _import_problem(module_name, error)
    module = importlib.import_module(module_name)  # it is in sys.modules
    function = getattr(module, name, None)
    if function is None:
        near = nearest(name, [key for key, item in vars(module).items() if callable(item)])
        fix = f"did you mean {module_name}:{near}?" if near else "name a function as module:function"
        return {"what": f"{module_name} has no function {name!r}", "fix": fix}
    if not callable(function):
        kind = type(function).__name__
        return {"what": f"{name} is not a function: its type is {kind}", "fix": "name a function as module:function"}
    return _kind_problem(function, name) or _decorator_problem(function, name) or _signature_problem(function)


def _kind_problem(function: object, name: str) -> dict[str, str]:
    """Whether a call would do something else than train."""
    packages = {base.__module__.partition(".")[0] for base in type(function).__mro__}
    package = next((each for each in _COMMANDS if each in packages), None)
    if package:
        call = f"{name}.callback(**cfg)" if hasattr(function, "callback") else "…"
        fix = f"name a function that calls it: def run_{name}(cfg): return {call}"
        return {"what": f"is a command of {package}, which reads the command line", "fix": fix}
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return {"what": "is a generator, so a call runs nothing of it", "fix": GENERATOR}
    return {}


def _decorator_problem(function: object, name: str) -> dict[str, str]:
    """Whether a decorator without `functools.wraps` hides that the function takes `cfg` only."""
    inner = function
    while isinstance(inner, FunctionType) and inner.__name__ != name and not hasattr(inner, "__wrapped__"):
        cells = [cell.cell_contents for cell in inner.__closure__ or () if cell != CellType()]
        inner = next((item for item in cells if isinstance(item, FunctionType)), None)
    if inner in (function, None) or not takes_run(function) or takes_run(inner):  # type: ignore[arg-type]
        return {}
    decorator, _, wrapper = function.__qualname__.rpartition(".<locals>.")  # type: ignore[attr-defined]
    fix = f"add @functools.wraps(function) above {wrapper} in {decorator}"
    return {"what": "a decorator hides its parameters, so it would be called with too many", "fix": fix}


def _import_problem(module_name: str, error: BaseException) -> dict[str, str]:
    if not isinstance(error, ModuleNotFoundError):
        return {"what": f"cannot be imported: {_frame(error)}{type(error).__name__}: {message_of(error, _LONGEST)}"}
    if str(error).startswith(f"No module named {error.name!r}: "):  # says why it is not in the copy of the code
        return {"what": f"cannot be imported: {_frame(error)}{message_of(error, _LONGEST)}"}
    if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
        fix = f"is {error.name.replace('.', '/')}.py below the folder you run from, or its package installed?"
        return {"what": f"no module named {error.name!r}", "fix": fix}
    missing = {"fix": f"pip install {shortened(error.name, _LONGEST)}?"} if error.name else {}
    return {"what": f"cannot be imported: {_frame(error)}{message_of(error, _LONGEST)}", **missing}


def _signature_problem(function: object) -> dict[str, str]:
    """Whether it can be called with (cfg, run) or (cfg)."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return {}
    parameters = signature.parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [item for item in parameters if item.kind in kinds]
    named = [item.name for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY]
    needed = [name for name in named if signature.parameters[name].default is inspect.Parameter.empty]
    if needed:
        return {"what": f"needs the argument {needed[0]!r}, which orchestrate does not pass", "fix": CALLED}
    takes_any = any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters)
    required = sum(item.default is inspect.Parameter.empty for item in positional)
    if takes_any or (required <= 2 and positional):
        return {}
    return {"what": f"takes {required} arguments", "fix": CALLED}


def _frame(error: BaseException) -> str:
    """Where in the user's code the error was raised: "train.py:3: ", or ""."""
    raised = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in raised if "importlib" not in frame.filename and not frame.filename.startswith(PACKAGE)]
    libraries = (sysconfig.get_path("stdlib"), "<frozen")
    own = [each for each in frames if "site-packages" not in each.filename and not each.filename.startswith(libraries)]
    frames = own or frames
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
