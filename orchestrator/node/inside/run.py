"""The `run` object that a trainer is called with."""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.model.order import Checkpoint, Order
from orchestrator.node.inside import checkpoint
from orchestrator.node.shared.journal import JournalWriter
from orchestrator.node.shared.trial_paths import CHECKPOINTS, TrialPaths
from orchestrator.text import message_of

_MAX_ROW = 2**16  # characters of one row as JSON
_NO_MAPPING = "it was not a mapping of names to numbers"
_TOO_LONG = f"a row has at most {_MAX_ROW} characters as JSON"
_NO_STEP = "its step was not a whole number from 0 to 2^63 - 1"
_MAX_WARNINGS = 20  # of one attempt, about values that cannot be reported
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Run:
    """What a trainer can do in an attempt: `report` numbers, `save` and `restore` states, keep files in `dir`."""

    def __init__(self, order: Order, writer: JournalWriter, paths: TrialPaths) -> None:
        self.id, self.attempt, self.seed = order.trial_id, order.attempt, order.seed
        self._writer, self._paths, self._checkpoints = writer, paths, order.restore
        self._step = -1
        self._warned: set[str] = set()

    @property
    def dir(self) -> Path:
        """A folder for files of any kind; it is kept with the trial."""
        self._paths.make(self._paths.files)
        return self._paths.files

    def report(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers at a step (the next one if left out); several reports of one step are one row.

        A value is a number, or an array or tensor of one element; NaN and infinities are kept. The keys of a nested
        mapping are joined by "/". What cannot be recorded is left out, with one warning; `report` never raises.
        """
        try:
            self._report(metrics, step)
        except Exception as error:  # a report must never end a training
            kind = type(error).__name__
            if not hasattr(type(metrics), "items"):
                return self._drop(_NO_MAPPING, f"{_show(metrics)} is not a mapping of names to numbers")
            self._drop(f"{kind} was raised while it was read", f"{kind}: {message_of(error, 200)}")

    def _report(self, metrics: Mapping[str, Any], step: int | None) -> None:
        at = _whole(self._step + 1 if step is None else step)
        if at is None:
            said = f"step={step!r}" if step is not None else f"the step after {self._step}"
            return self._drop(_NO_STEP, f"{said} is not a whole number from 0 to 2^63 - 1")
        clean: dict[str, Any] = {}
        for key, value in metrics.items():
            if type(value) is float and type(key) is str and value - value == 0.0:  # finite: the common case
                clean[key] = value
            else:
                clean.update(self._clean(str(key), value))
        text = _encode(clean)
        if len(text) > _MAX_ROW:
            return self._drop(_TOO_LONG, f"that of step {at} has {len(text)} characters, which are too many")
        self._step = at
        if clean:
            self._writer.report(at, text)
        return None

    def _clean(self, key: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield from self._clean(f"{key}/{name}", item)
            return
        number = _number(value)
        if number is None:
            self._warn(key, f"{key!r} was left out of reports: {_show(value)} is not a number")
        else:
            yield key, number

    def _drop(self, reason: str, first: str) -> None:
        """Leave out a row. `reason`: one of a few, by which rows are counted; `first`: what is told of the first."""
        self._writer.dropped(reason)
        self._warn(reason, f"a report was left out: {first}")

    def _warn(self, about: str, text: str) -> None:
        if about not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(about)
            self._writer.notice(text)

    def save(self, state: Any, step: int | None = None) -> None:
        """Save a state for `restore` in a later attempt; it is on the disk when this returns.

        A state may hold containers, numbers, strings, bytes, numpy arrays and tensors; anything else is a TypeError
        that names it. A `Path` to a folder saves the folder with all that is in it. The random number generators are
        saved as well. The newest two states are kept, and those of the last seconds.
        """
        at = max(self._step, 0) if step is None else _whole(step)
        if at is None:
            raise ValueError(f"step={step!r} is not a whole number from 0 on")
        if isinstance(state, str) and os.path.exists(state):
            self._warn("save", f"run.save({state!r}) has saved this text; run.save(Path({state!r})) saves the folder")
        self._paths.make(self._paths.checkpoints)
        path = checkpoint.save(self._paths.checkpoints, state, at, self.attempt)
        self._writer.saved(Checkpoint(at, f"{CHECKPOINTS}/{path.name}"))
        checkpoint.prune(self._paths.checkpoints, path)

    def restore(self) -> Any:
        """The state that an earlier attempt saved, or the path of a copy of the folder; None if there is none.

        The random number generators continue from where they were saved, so call this after the model is built.
        Tensors come back on the CPU.
        """
        for saved in self._checkpoints:
            try:
                step, state = checkpoint.load(self._paths.root / saved.path)
            except Exception as error:  # damaged, of another version, or deleted: take the one before
                why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                self._writer.notice(f"the checkpoint of step {saved.step} cannot be read and is skipped ({why})")
                continue
            self._step = max(self._step, step)
            self._writer.restored(Checkpoint(step, saved.path))
            return state
        return None


def report_returned(run: Run, name: str, result: Any) -> None:
    """Record what the trainer returned: a mapping is a last report; a number is the metric `name`, the objective."""
    if isinstance(result, Mapping):
        run.report(result)
    elif _number(result) is not None:
        run.report({name: result})
    else:
        kind = f"`train` returned {_show(result)}, which is not recorded"
        run._warn("returned", f"{kind}: return a number, which is the objective, or a mapping of metrics to numbers")


def _whole(step: Any) -> int | None:
    try:
        number = int(step) if isinstance(step, float) and step.is_integer() else operator.index(step)
    except TypeError:
        value = _number(step)  # of numpy or torch, perhaps
        if type(value) is not float or not value.is_integer():
            return None
        number = int(value)
    return number if 0 <= number < 2**63 else None


def _number(value: Any) -> float | int | str | None:
    """The value as a number that JSON can hold, or the name of a non-finite one; None if it is not a number."""
    if hasattr(value, "item"):  # numpy and torch: one element, on any device
        try:
            value = value.item()
        except (ValueError, RuntimeError, TypeError):
            return None
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (str, bytes)) or not hasattr(type(value), "__float__"):
        return None
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else "Infinity" if number > 0 else "-Infinity"


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = ""
    return text if 0 < len(text) <= 60 else f"a value of type {type(value).__name__}"
