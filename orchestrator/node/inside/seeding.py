"""Same seed, same numbers: generators, thread pools and deterministic algorithms of a trial.

A library that the trainer imports late is set up at its import, so it does not matter when that happens.
"""

from __future__ import annotations

import atexit
import importlib.abc
import importlib.machinery
import linecache
import logging
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Literal

IMPORT_SEED = 0  # while the trainer's module is imported, which all trials of a zygote share
_Calls = list[tuple[Callable[[int], Any], int]]
_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


class Setup:
    """What python, numpy and torch are to be set to."""

    def __init__(self, seed: int, threads: int, deterministic: Literal["warn", "error", "off"]) -> None:
        self._seed, self._threads, self._deterministic = seed, threads, deterministic
        self._calls: _Calls = []

    def settle(self) -> None:
        """Choose algorithms, and what is to be done by `seed`, also with libraries imported later."""
        self._calls = [(random.seed, self._seed)]
        late = {"numpy.random": self._numpy, "torch": self._torch}
        missing = {name: ready for name, ready in late.items() if name not in sys.modules}
        for name in late.keys() - missing.keys():
            self._calls += late[name](sys.modules[name])
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Late)]
        if missing:
            sys.meta_path.insert(0, _Late(missing))

    def seed(self) -> None:
        """Set generators and thread pools, in the process itself: some libraries draw a seed after a fork."""
        for function, number in self._calls:
            function(number)
        if self._threads > 1 and ("numpy" in sys.modules or "torch" in sys.modules):
            import threadpoolctl

            threadpoolctl.threadpool_limits(self._threads)

    def _numpy(self, numpy_random: Any) -> _Calls:
        return [(numpy_random.seed, self._seed % 2**32)]

    def _torch(self, torch: Any) -> _Calls:
        warn = self._deterministic == "warn"
        mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        if self._deterministic != "off" and mode != (True, warn):
            torch.use_deterministic_algorithms(True, warn_only=warn)
        # `torch.manual_seed` also seeds devices, and notes a traceback for each: 4 ms that a trial without one saves.
        cuda = torch.backends.cuda.is_built() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
        devices = cuda or torch.xpu.is_available()
        calls = [(torch.manual_seed if devices else torch.default_generator.manual_seed, self._seed % 2**63)]
        if torch.get_num_threads() != self._threads:
            calls.append((torch.set_num_threads, self._threads))
        return calls


class _Late(importlib.abc.MetaPathFinder):
    """Sets up the named modules when they have been imported."""

    def __init__(self, ready: dict[str, Callable[[Any], _Calls]]) -> None:
        self._ready = ready

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        ready = self._ready.get(name)
        if ready is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _call_after(spec.loader, ready)
        return spec


def _call_after(loader: Any, ready: Callable[[Any], _Calls]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        for function, number in ready(module):
            function(number)

    loader.exec_module = exec_module


def name_operations(notice: Callable[[str], None]) -> None:
    """Turn torch's warnings of operations without a deterministic algorithm into one notice for each."""
    shown = warnings.showwarning
    warnings.showwarning = _Naming(shown.shown if isinstance(shown, _Naming) else shown, notice)


class _Naming:
    """In the place of `warnings.showwarning`."""

    def __init__(self, shown: Callable[..., None], notice: Callable[[str], None]) -> None:
        self.shown, self._notice = shown, notice
        self._named: set[str] = set()

    def __call__(self, message: Any, *rest: Any, **options: Any) -> None:
        found = _NOT_DETERMINISTIC.search(str(message))
        if found is None:
            self.shown(message, *rest, **options)
        elif found[1] not in self._named:
            self._named.add(found[1])
            self._notice(f"{found[1]} has no deterministic algorithm: results may differ in the last digits")


def warm_torch() -> None:
    """Import what torch leaves for the first optimizer and for deterministic algorithms: 1.3 s each.

    And run small operations on the CPU, which set up torch's dispatcher. They start no thread: there is one for now,
    and pools, which do not survive a fork, start with the second. No gradients: with CUDA they start threads.
    """
    import torch._compile
    import torch._dynamo
    import torch._inductor.config
    import torch._subclasses.fake_tensor
    import torch.optim

    for module in (torch._dynamo.eval_frame, torch._compile, torch.random, torch.cuda.random):
        linecache.getlines(str(module.__file__))  # `torch.manual_seed` notes a traceback: 5 ms to read its sources

    if not logging.getLogger("torch").isEnabledFor(logging.INFO):  # what was compiled is told at that level
        for module, name in (
            (torch._dynamo.utils, "dump_compile_times"),
            (torch._dynamo.eval_frame, "_log_traced_frames"),
            (torch._subclasses.fake_tensor, "dump_cache_stats"),
        ):
            atexit.unregister(getattr(module, name, print))  # not every version of torch has them

    torch.set_num_threads(1)
    with torch.no_grad():
        float(torch.nn.functional.linear(*(torch.ones(3, 3, device="cpu") for _ in range(2))).relu().sum())
