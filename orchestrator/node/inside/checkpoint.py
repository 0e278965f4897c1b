"""States on disk: atomic, and read back without ever executing what is in them."""

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

_PLAIN = b"orchestrate state 1\n"  # first bytes of a state written without torch
_ARRAY = "\0array"  # key of an array inside a saved state
_NAME = re.compile(r"(\d+)-step-(\d+)\.state")
_KEPT = 2
_YOUNG = 10.0  # seconds
_UNPACKED = ".restored"  # where a folder that was restored lies, until the attempt ends
_SCALARS = (type(None), bool, int, float, complex, str, bytes)


def save(folder: Path, state: Any, step: int, attempt: int) -> Path:
    """Write a state, or the folder of that path, and the generators; it is on the disk when this returns."""
    source = state if isinstance(state, Path) else None
    if source is not None and not source.is_dir():
        raise NotADirectoryError(f"{source} is not a folder, and run.save takes a state or a folder")
    data = {"step": step, "state": None if source else _portable(state, "state"), "generators": _generators()}
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
    """Keep the newest states, by attempt and step, and those so young that the coordinator may not know of a newer."""
    for _, path in _known(folder)[:-_KEPT]:
        if now - path.stat().st_mtime > _YOUNG:
            path.unlink(missing_ok=True)


def discard_drafts(folder: Path) -> None:
    """Remove what a killed process was writing, or had unpacked. Only while no attempt at the trial runs."""
    if not os.path.isdir(folder):
        return
    shutil.rmtree(folder / _UNPACKED, ignore_errors=True)
    for draft in folder.glob(".*.state.*.part"):
        draft.unlink(missing_ok=True)


def load(path: Path) -> tuple[int, Any]:
    """Step and state, or the path of the folder; the generators are set as they were when it was saved."""
    folder = None
    with path.open("rb") as file:
        if file.read(len(archive.MARK)) == archive.MARK:
            folder = path.parent / _UNPACKED / path.stem
            shutil.rmtree(folder, ignore_errors=True)
            data = _read(io.BytesIO(archive.read(file, folder)))
        else:
            file.seek(0)
            data = _read(file)
    _set_generators(data["generators"])
    return int(data["step"]), folder / archive.FILES if folder else _original(data["state"])


def _known(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    names = ((_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted(((int(found[1]), int(found[2])), path) for found, path in names if found)


# ---------------------------------------------------------------- the file


class _DataOnly(pickle.Unpickler):
    """Reads containers and numbers; a file that names a class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"a state holds data only, not {module}.{name}")


def _write(data: Any, file: Any) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        file.write(_PLAIN)
        pickle.dump(data, file, protocol=4)
    else:
        torch.save(data, file)


def _bytes(data: Any) -> bytes:
    file = io.BytesIO()
    _write(data, file)
    return file.getvalue()


def _read(file: Any) -> Any:
    if file.read(len(_PLAIN)) == _PLAIN:
        return _DataOnly(file).load()
    import torch

    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


# ---------------------------------------------------------------- what a state may hold


def _portable(value: Any, name: str) -> Any:
    """The same state with numpy's arrays as bytes; a TypeError names what could not be read back."""
    kind = type(value)
    if kind in _SCALARS or _is_tensor(value):
        return value
    if kind in (list, tuple):
        return kind(_portable(item, f"{name}[{index}]") for index, item in enumerate(value))
    if kind is set:
        return {_portable(item, f"{name}{{...}}") for item in value}
    if kind in (dict, collections.OrderedDict):
        return _portable_dict(value, name)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)) and not value.dtype.hasobject:
        file = io.BytesIO()
        numpy.save(file, numpy.asarray(value), allow_pickle=False)
        return {_ARRAY: file.getvalue(), "scalar": isinstance(value, numpy.generic)}
    raise TypeError(
        f"{name} is a {kind.__module__}.{kind.__qualname__}, which run.restore() could not read back: save numbers, "
        "strings, bytes, lists, tuples, sets, dicts, numpy arrays and tensors (state_dict() of an object)"
    )


def _portable_dict(value: Any, name: str) -> Any:
    for key in value:
        if type(key) not in (*_SCALARS, tuple):
            raise TypeError(f"a key of {name} is a {type(key).__qualname__}: keys are numbers, strings or tuples")
    copy = type(value)((key, _portable(item, f"{name}[{key!r}]")) for key, item in value.items())
    if hasattr(value, "__dict__"):
        copy.__dict__.update(value.__dict__)  # torch keeps versions of modules beside a state_dict
    return copy


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return type(value) in (torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device)


def _original(value: Any) -> Any:
    if isinstance(value, dict) and _ARRAY in value:
        import numpy

        array = numpy.load(io.BytesIO(value[_ARRAY]), allow_pickle=False)
        return array[()] if value["scalar"] else array
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _original(item)
        return value
    if type(value) in (list, tuple, set):
        return type(value)(_original(item) for item in value)
    return value


# ---------------------------------------------------------------- generators


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
        warnings.warn("the saved state had another number of GPUs: their generators were not set")
