"""Whether a trainer can be imported and called, found out in a process of its own while Ray starts.

`python -m orchestrator.trainer_check MODULE:FUNCTION PATH…` imports it with PATH… first on sys.path and prints, as the
last line of its output, a JSON object: {} or {"what": …, "fix": …}.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import TrainerError

MARK = "orchestrate-trainer-check "
CALLED = "a trainer is called as train(cfg, run) or train(cfg)"
PATIENCE = 300.0  # seconds an import may take


class TrainerCheck:
    """A check under way."""

    def __init__(self, trainer: str, import_path: Sequence[str], cwd: Path) -> None:
        self._trainer = trainer
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.trainer_check", trainer, *import_path],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def result(self) -> None:
        """Wait for it. Raises TrainerError if the trainer cannot be imported or called."""
        try:
            output = self._process.communicate(timeout=PATIENCE)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            self.cancel()
            raise TrainerError(
                f"its import takes more than {PATIENCE:.0f} s",
                where=self._where,
                fix="import heavy things inside train",
            ) from None
        lines = [line for line in output.splitlines() if line.startswith(MARK)]
        if not lines:
            last = output.strip().splitlines()[-1:] or [f"exit code {self._process.returncode}"]
            raise TrainerError(f"its import ends the process: {last[0]}", where=self._where)
        found = json.loads(lines[-1][len(MARK) :])
        if found:
            raise TrainerError(found["what"], where=self._where, fix=found.get("fix"))

    def cancel(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def _where(self) -> str:
        return f"sweep.trainer ({self._trainer})"


def check(trainer: str) -> dict[str, str]:
    """What is wrong with the trainer, or nothing."""
    module_name, _, name = trainer.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            fix = f"is {error.name.replace('.', '/')}.py below the folder you run from, or its package installed?"
            return {"what": f"no module named {error.name!r}", "fix": fix}
        missing = {"fix": f"pip install {error.name}?"} if error.name else {}
        return {"what": f"cannot be imported: {_frame(error)}{error}", **missing}
    except BaseException as error:
        return {"what": f"cannot be imported: {_frame(error)}{type(error).__name__}: {error}"}
    function = getattr(module, name, None)
    if function is None:
        import difflib

        near = difflib.get_close_matches(name, [key for key, item in vars(module).items() if callable(item)], 1)
        fix = f"did you mean {module_name}:{near[0]}?" if near else "name a function as module:function"
        return {"what": f"{module_name} has no function {name!r}", "fix": fix}
    if not callable(function):
        return {"what": f"{name} is no function but a {type(function).__name__}"}
    return _arity(inspect.unwrap(function))


def _arity(function: object) -> dict[str, str]:
    """A trainer takes (cfg, run) or (cfg)."""
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
        return {"what": f"needs the argument {needed[0]!r}, which nobody gives it", "fix": CALLED}
    variadic = any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters)
    required = sum(item.default is inspect.Parameter.empty for item in positional)
    if variadic or (required <= 2 and positional):
        return {}
    return {"what": f"takes {required} arguments", "fix": CALLED}


def _frame(error: BaseException) -> str:
    """ "train.py:3: " of the user's frame that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    libraries = (sysconfig.get_path("stdlib"), "<frozen")
    own = [each for each in users if "site-packages" not in each.filename and not each.filename.startswith(libraries)]
    users = own or users
    return f"{Path(users[-1].filename).name}:{users[-1].lineno}: " if users else ""


if __name__ == "__main__":
    sys.path[:0] = sys.argv[2:]
    found = check(sys.argv[1])
    sys.stdout.write("\n" + MARK + json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)
