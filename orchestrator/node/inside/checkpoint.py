"""Saved states on disk: written atomically, and read back without executing anything in them."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random
import re
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.files import replacing, sync
from orchestrator.node.watch import archive

_MAGIC = b"orchestrate state 1\n"  # first bytes of a state written without torch
_ARRAY = "\0array"  # key that marks a numpy array inside a saved state
_NAME = re.compile(r"(\d+)-step-(\d+)\.state")
_KEPT = 2  # states
_MIN_AGE = 10.0  # seconds
_UNPACKED = ".restored"  # holds copies of folders that were restored, until the attempt ends
_SCALARS = (type(None), bool, int, float, complex, str, bytes)


def save(folder: Path, state: Any, step: int, attempt: int) -> Path:
    """Write a state, or the folder at that path, with the random generators. It is on the disk when this returns."""
    source = state if isinstance(state, Path) else None
    if source is not None and not source.is_dir():
        raise NotADirectoryError(f"{source} is not a folder, and run.save takes a state or a folder")
    data = {"step": step, "state": None if source else _to_portable(state, "state"), "generators": _generators()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{attempt}-step-{step}.state"
    with replacing(path, durable=True, tag=f".{os.getpid()}") as draft, draft.open("wb") as file:
        if source is None:
            _write(data, file)
        else:
            archive.write(file, _bytes(data), source)
    sync(folder.parent)  # the folder itself may be new
    return path


def prune(folder: Path, now: float) -> None:
    """Keep the newest states, by attempt and step, and those of the last seconds; delete the others.

    Those of the last seconds stay because the coordinator may not know of a newer one yet.
    """
    for _, path in _saved_states(folder)[:-_KEPT]:
        if now - path.stat().st_mtime > _MIN_AGE:
            path.unlink(missing_ok=True)


def discard_drafts(folder: Path) -> None:
    """Delete what a killed process was writing, and folders it had restored. Call it while no attempt runs."""
    if not os.path.isdir(folder):
        return
    shutil.rmtree(folder / _UNPACKED, ignore_errors=True)
    for draft in folder.glob(".*.state.*.part"):
        draft.unlink(missing_ok=True)


def load(path: Path) -> tuple[int, Any]:
    """The step, and the state or the path of the folder. Sets the random generators as they were saved."""
    folder = None
    with path.open("rb") as file:
        if file.read(len(archive.MAGIC)) == archive.MAGIC:
            folder = path.parent / _UNPACKED / path.stem
            shutil.rmtree(folder, ignore_errors=True)
            data = _read(io.BytesIO(archive.read(file, folder)))
        else:
            file.seek(0)
            data = _read(file)
    _set_generators(data["generators"])
    return int(data["step"]), folder / archive.FILES if folder else _from_portable(data["state"])


def _saved_states(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    names = ((_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted(((int(found[1]), int(found[2])), path) for found, path in names if found)


# ---------------------------------------------------------------- the file


class _DataOnly(pickle.Unpickler):
    """Reads containers and numbers; refuses a file that names a class or a function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"a state holds data only, not {module}.{name}")


def _write(data: Any, file: Any) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        file.write(_MAGIC)
        pickle.dump(data, file, protocol=4)
    else:
        torch.save(data, file)


def _bytes(data: Any) -> bytes:
    file = io.BytesIO()
    _write(data, file)
    return file.getvalue()


def _read(file: Any) -> Any:
    if file.read(len(_MAGIC)) == _MAGIC:
        return _DataOnly(file).load()
    import torch

    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


# ---------------------------------------------------------------- what a state may hold


def _to_portable(value: Any, name: str) -> Any:
    """The state with numpy arrays as bytes. Raises a TypeError that names what could not be read back."""
    cls = type(value)
    if cls in _SCALARS or _is_tensor(value):
        return value
    if cls in (list, tuple):
        return cls(_to_portable(item, f"{name}[{index}]") for index, item in enumerate(value))
    if cls is set:
        return {_to_portable(item, f"{name}{{...}}") for item in value}
    if cls in (dict, collections.OrderedDict):
        return _to_portable_dict(value, name)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)) and not value.dtype.hasobject:
        file = io.BytesIO()
        numpy.save(file, numpy.asarray(value), allow_pickle=False)
        return {_ARRAY: file.getvalue(), "scalar": isinstance(value, numpy.generic)}
    raise TypeError(
        f"{name} is a {cls.__module__}.{cls.__qualname__}, which run.restore() could not read back: save numbers, "
        "strings, bytes, lists, tuples, sets, dicts, numpy arrays and tensors (state_dict() of an object)"
    )


def _to_portable_dict(value: Any, name: str) -> Any:
    for key in value:
        if type(key) not in (*_SCALARS, tuple):
            raise TypeError(f"a key of {name} is a {type(key).__qualname__}: keys are numbers, strings or tuples")
    copy = type(value)((key, _to_portable(item, f"{name}[{key!r}]")) for key, item in value.items())
    if hasattr(value, "__dict__"):
        copy.__dict__.update(value.__dict__)  # torch keeps module versions as an attribute of a state_dict
    return copy


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return type(value) in (torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device)


def _from_portable(value: Any) -> Any:
    if isinstance(value, dict) and _ARRAY in value:
        import numpy

        array = numpy.load(io.BytesIO(value[_ARRAY]), allow_pickle=False)
        return array[()] if value["scalar"] else array
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _from_portable(item)
        return value
    if type(value) in (list, tuple, set):
        return type(value)(_from_portable(item) for item in value)
    return value


# ---------------------------------------------------------------- random generators


def _generators() -> dict[str, Any]:
    saved: dict[str, Any] = {"python": random.getstate()}
    if "numpy.random" in sys.modules:
        name, keys, *rest = sys.modules["numpy.random"].get_state()
        saved["numpy"] = [name, keys.tolist(), *rest]
    torch = sys.modules.get("torch")
    if torch is not None:
        saved["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            saved["cuda"] = torch.cuda.get_rng_state_all()
    return saved


def _set_generators(saved: Mapping[str, Any]) -> None:
    version, keys, gauss = saved["python"]
    random.setstate((version, tuple(keys), gauss))
    if "numpy" in saved:
        import numpy

        name, keys, *rest = saved["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype="uint32"), *rest))
    if "torch" in saved:
        import torch

        torch.set_rng_state(saved["torch"])
        if "cuda" in saved:
            _set_cuda(torch, saved["cuda"])


def _set_cuda(torch: Any, states: list[Any]) -> None:
    if torch.cuda.device_count() == len(states):
        torch.cuda.set_rng_state_all(states)
    else:
        warnings.warn("the state was saved with another number of GPUs: the generators of the GPUs were not set")
