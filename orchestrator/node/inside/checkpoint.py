"""Saved states on disk: written atomically, and read back without executing anything in them."""

from __future__ import annotations

import collections
import ctypes
import io
import os
import pickle
import random
import re
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

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
    try:
        portable = None if source else _to_portable(state, "state")
    except RecursionError:
        raise ValueError("the state contains itself, or is nested too deeply, for run.restore() to read back") from None
    data = {"step": step, "state": portable, "generators": _generators()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{attempt}-step-{step}.state"
    with replacing(path, durable=True, tag=f".{os.getpid()}") as draft, draft.open("wb") as file:
        if source is None:
            _write(data, file)
        else:
            archive.write(file, _bytes(data), source)
    sync(folder.parent)  # the folder itself may be new
    return path


def prune(folder: Path, written: Path) -> None:
    """Keep the newest states, by attempt and step, and those of the last seconds; delete the others.

    Those of the last seconds stay because the coordinator may not know of a newer one yet. `written`: the state that
    was written just now, whose time is by the same clock as theirs: a file server may have one of its own.
    """
    now = written.stat().st_mtime
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


class _Pickler(pickle.Pickler):
    """Writes containers and numbers, and puts what is torch's into a list beside them."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, protocol=4)
        self.tensors: list[Any] = []

    def persistent_id(self, value: Any) -> int | None:
        if not _is_tensor(value):
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _DataOnly(pickle.Unpickler):
    """Reads containers and numbers; refuses a file that names a class or a function."""

    def __init__(self, file: IO[bytes], tensors: Sequence[Any] = ()) -> None:
        super().__init__(file)
        self._tensors = tensors

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("builtins", "complex"):
            return complex
        raise pickle.UnpicklingError(f"a state holds data only, not {module}.{name}")

    def persistent_load(self, number: Any) -> Any:
        return self._tensors[number]


def _write(data: Any, file: IO[bytes]) -> None:
    """Data by pickle, tensors by torch: what torch reads safely is less than what a state may hold."""
    torch = sys.modules.get("torch")
    if torch is None:
        file.write(_MAGIC)
        _Pickler(file).dump(data)
        return
    pickled = io.BytesIO()
    pickler = _Pickler(pickled)
    pickler.dump(data)
    torch.save(
        {"data": torch.frombuffer(pickled.getbuffer(), dtype=torch.uint8), "tensors": pickler.tensors},
        file,
    )


def _bytes(data: Any) -> bytes:
    file = io.BytesIO()
    _write(data, file)
    return file.getvalue()


def _read(file: Any) -> Any:
    if file.read(len(_MAGIC)) == _MAGIC:
        return _DataOnly(file).load()
    import torch

    file.seek(0)
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    if "tensors" not in loaded:  # written by version 0.1
        return loaded
    data = loaded["data"]
    return _DataOnly(io.BytesIO(ctypes.string_at(data.data_ptr(), data.numel())), loaded["tensors"]).load()


# ---------------------------------------------------------------- what a state may hold


def _to_portable(value: Any, name: str) -> Any:
    """The state with numpy arrays as bytes. Raises a TypeError that names what could not be read back."""
    cls = type(value)
    if cls in _SCALARS:
        return value
    if _is_tensor(value):
        _to_portable(getattr(value, "__dict__", {}), f"{name}.__dict__")
        return value
    if cls in (list, tuple):
        return cls(_to_portable(item, f"{name}[{index}]") for index, item in enumerate(value))
    if cls is set:
        for item in value:
            _check_key(item, f"an element of {name}")
        return value
    if cls in (dict, collections.OrderedDict):
        return _to_portable_dict(value, name)
    if _is_array(value):
        numpy = sys.modules["numpy"]
        file = io.BytesIO()
        numpy.lib.format.write_array(file, numpy.asarray(value), version=(3, 0), allow_pickle=False)
        return {_ARRAY: file.getvalue(), "scalar": isinstance(value, numpy.generic)}
    raise TypeError(
        f"{name} is a {cls.__module__}.{cls.__qualname__}, which run.restore() could not read back: save numbers, "
        "strings, bytes, lists, tuples, sets, dicts, numpy arrays and tensors (state_dict() of an object)"
    )


def _to_portable_dict(value: Any, name: str) -> Any:
    for key in value:
        _check_key(key, f"a key of {name}")
    copy = type(value)((key, _to_portable(item, f"{name}[{key!r}]")) for key, item in value.items())
    if hasattr(value, "__dict__"):  # torch keeps module versions as an attribute of a state_dict
        copy.__dict__.update(_to_portable(value.__dict__, f"{name}.__dict__"))
    return copy


def _check_key(key: Any, name: str) -> None:
    if type(key) is tuple:
        for item in key:
            _check_key(item, f"part of {name}")
    elif type(key) not in _SCALARS or key == _ARRAY:
        kind = "reserved string" if key == _ARRAY else f"{type(key).__module__}.{type(key).__qualname__}"
        raise TypeError(
            f"{name} is a {kind}, which run.restore() could not read back: take numbers, strings, bytes, or tuples "
            "of these"
        )


def _is_array(value: Any) -> bool:
    """Whether it is a numpy array or scalar that its file format gives back: no masked array, no type from outside."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value).__module__ != "numpy" or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return False
    if isinstance(value, numpy.ndarray) and type(value) not in (numpy.ndarray, numpy.memmap):
        return False
    dtype = value.dtype
    if dtype.hasobject or dtype.isbuiltin == 1:
        return not dtype.hasobject
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = numpy.lib.format.descr_to_dtype(numpy.lib.format.dtype_to_descr(dtype))
    return bool(back == dtype and back.type is dtype.type)


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
        if hasattr(value, "__dict__"):
            _from_portable(value.__dict__)
        return value
    if type(value) in (list, tuple):
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
