"""Same seed, same numbers: generators, thread pools and deterministic algorithms of a trial.

A library that the trainer imports late is set up at its import, so it does not matter when that happens.
"""

from __future__ import annotations

import atexit
import importlib.abc
import importlib.machinery
import linecache
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Literal

IMPORT_SEED = 0  # while the trainer's module is imported, which all trials of a zygote share
_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


@dataclass(frozen=True)
class Setup:
    """What python, numpy and torch are set to."""

    seed: int
    threads: int
    deterministic: Literal["warn", "error", "off"]

    def apply(self) -> None:
        """Set what is loaded now, and the rest when it is."""
        random.seed(self.seed)
        late = {"numpy.random": self._numpy, "torch": self._torch}
        for name, ready in late.items():
            if name in sys.modules:
                ready(sys.modules[name])
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Late)]
        sys.meta_path.insert(0, _Late(late))
        if self.threads > 1 and ("numpy" in sys.modules or "torch" in sys.modules):
            import threadpoolctl

            threadpoolctl.threadpool_limits(self.threads)

    def _numpy(self, numpy_random: Any) -> None:
        numpy_random.seed(self.seed % 2**32)

    def _torch(self, torch: Any) -> None:
        # `torch.manual_seed` also seeds devices, and notes a traceback for each: 4 ms that a trial without one saves.
        cuda = torch.backends.cuda.is_built() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
        devices = cuda or torch.xpu.is_available()
        (torch.manual_seed if devices else torch.default_generator.manual_seed)(self.seed % 2**63)
        torch.set_num_threads(self.threads)
        if self.deterministic != "off":
            torch.use_deterministic_algorithms(True, warn_only=self.deterministic == "warn")


class _Late(importlib.abc.MetaPathFinder):
    """Calls back when one of the named modules has been imported."""

    def __init__(self, ready: dict[str, Callable[[Any], None]]) -> None:
        self._ready = ready

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        ready = self._ready.get(name)
        if ready is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _call_after(spec.loader, ready)
        return spec


def _call_after(loader: Any, ready: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        ready(module)

    loader.exec_module = exec_module


def name_operations(notice: Callable[[str], None]) -> None:
    """Turn torch's warnings of operations without a deterministic algorithm into one notice for each."""
    shown, named = warnings.showwarning, set[str]()

    def show(message: Any, category: Any, filename: str, lineno: int, *rest: Any, **options: Any) -> None:
        found = _NOT_DETERMINISTIC.search(str(message))
        if found is None:
            shown(message, category, filename, lineno, *rest, **options)
        elif found[1] not in named:
            named.add(found[1])
            notice(f"{found[1]} has no deterministic algorithm: results may differ in the last digits")

    warnings.showwarning = show


def warm_torch() -> None:
    """Import what torch leaves for the first optimizer and for deterministic algorithms: 1.3 s each.

    Imports only. Running an operation here would start pools that do not survive a fork.
    """
    import torch._compile
    import torch._dynamo
    import torch._inductor.config
    import torch.optim

    for module in (torch._dynamo.eval_frame, torch._compile, torch.random, torch.cuda.random):
        linecache.getlines(str(module.__file__))  # `torch.manual_seed` notes a traceback: 5 ms to read its sources

    atexit.unregister(torch._dynamo.utils.dump_compile_times)  # nothing is compiled here: 1 ms at each trial's exit
