"""Make a trial's numbers depend on its seed alone: random generators, thread pools, deterministic algorithms.

If the trainer imports numpy or torch only when it runs, an import hook sets it up at that moment.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.abc
import importlib.machinery
import linecache
import logging
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Literal

from orchestrator.node.inside import failure

IMPORT_SEED = 0  # used while a zygote imports the trainer's module, for all its trials at once
_Calls = list[tuple[Callable[[int], Any], int]]  # functions and what to call them with
# Of those in torch's aten/src/ATen/cpu/vml.h.
_MKL_FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "lgamma", "log", "log10"),
    *("log1p", "log2", "rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)
_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


_DRAWS = ("choice", "choices", "gauss", "getrandbits", "randint", "random", "randrange", "sample", "shuffle", "uniform")
_drawn: list[str] = []  # notices about the import


@contextlib.contextmanager
def looking_for_draws(roots: Sequence[str]) -> Iterator[None]:
    """While the trainer's module is imported: note from which generators it draws numbers. `roots`: the project.

    Libraries draw from that of Python for themselves; so its functions look who calls them.
    """
    originals = {name: getattr(random, name) for name in _DRAWS}
    found: list[str] = []
    looking = True

    def noting(original: Callable[..., Any]) -> Callable[..., Any]:  # a module may keep it
        @wraps(original)
        def draw(*args: Any, **options: Any) -> Any:
            if looking and not found and failure.name_below(sys._getframe(1).f_code.co_filename, tuple(roots)):
                found.append("random")
            return original(*args, **options)

        return draw

    for name, original in originals.items():
        setattr(random, name, noting(original))
    try:
        yield
    finally:
        looking = False
        for name, original in originals.items():
            setattr(random, name, original)
    _keep_draws(found)


def _keep_draws(found: list[str]) -> None:
    numpy_random, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy_random is not None:
        now, fresh = numpy_random.get_state(), numpy_random.RandomState(IMPORT_SEED).get_state()
        if now[2] != fresh[2] or (now[1] != fresh[1]).any():
            found.append("numpy.random")
    if torch is not None:
        fresh = torch.Generator().manual_seed(IMPORT_SEED).get_state()
        if not torch.equal(torch.default_generator.get_state(), fresh):
            found.append("torch")
    if found:
        _drawn[:] = [
            f"{' and '.join(found)}: random numbers were drawn, or a seed was set, while the trainer's module was "
            "imported: what was drawn is the same in all trials, and `train` begins with the trial's own seed"
        ]


def tell_draws(notice: Callable[[str], None]) -> None:
    """Say what `looking_for_draws` has found."""
    for text in _drawn:
        notice(text)


class Setup:
    """Sets up python, numpy and torch: `configure` in the zygote, before the fork; `seed` in the trial."""

    def __init__(self, seed: int, threads: int, deterministic: Literal["warn", "error", "off"]) -> None:
        self._seed, self._threads, self._deterministic = seed, threads, deterministic
        self._calls: _Calls = []

    def configure(self) -> None:
        """Choose algorithms, collect what `seed` has to do, and set up libraries that are imported later."""
        self._calls = [(random.seed, self._seed)]
        libraries = {"numpy.random": self._numpy, "torch": self._torch}
        missing = {name: set_up for name, set_up in libraries.items() if name not in sys.modules}
        for name in libraries.keys() - missing.keys():
            self._calls += libraries[name](sys.modules[name])
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _ImportHook)]
        if missing:
            sys.meta_path.insert(0, _ImportHook(missing))

    def seed(self) -> None:
        """Seed the generators and size the thread pools, after the fork: some libraries draw a new seed there."""
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
        # `torch.manual_seed` also seeds devices and records a stack for each: 4 ms that a trial without devices saves.
        cuda = torch.backends.cuda.is_built() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
        devices = cuda or torch.xpu.is_available()
        calls = [(torch.manual_seed if devices else torch.default_generator.manual_seed, self._seed % 2**63)]
        # Also where the number is right already: until it is set, MKL may take fewer threads when the machine is busy,
        # and sums come out differently. torch turns that off (https://github.com/pytorch/pytorch/issues/13757).
        if self._threads > 1 or torch.get_num_threads() != 1:
            calls.append((torch.set_num_threads, self._threads))
        if self._threads > 1:
            _choose_kernels()
        return calls


class _ImportHook(importlib.abc.MetaPathFinder):
    """Sets up some modules once they have been imported."""

    def __init__(self, set_up: dict[str, Callable[[Any], _Calls]]) -> None:
        self._set_up = set_up

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        set_up = self._set_up.get(name)
        if set_up is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _call_after_import(spec.loader, set_up)
        return spec


def _call_after_import(loader: Any, set_up: Callable[[Any], _Calls]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        for function, number in set_up(module):
            function(number)

    loader.exec_module = exec_module


def notice_nondeterminism(notice: Callable[[str], None]) -> None:
    """Give one notice for each operation of which torch warns that it has no deterministic algorithm."""
    current = warnings.showwarning
    warnings.showwarning = _ShowWarning(current.original if isinstance(current, _ShowWarning) else current, notice)


class _ShowWarning:
    """Replaces `warnings.showwarning`."""

    def __init__(self, original: Callable[..., None], notice: Callable[[str], None]) -> None:
        self.original, self._notice = original, notice
        self._noticed: set[str] = set()

    def __call__(self, message: Any, *rest: Any, **options: Any) -> None:
        found = _NOT_DETERMINISTIC.search(str(message))
        if found is None:
            self.original(message, *rest, **options)
        elif found[1] not in self._noticed:
            self._noticed.add(found[1])
            self._notice(f"{found[1]} has no deterministic algorithm: results may differ in the last digits")


@cache
def _choose_kernels() -> None:
    """Have MKL choose its kernels now, in one thread: 12 ms, once a process.

    It does so at the first call of each function. If several threads make that call at once, one of them may compute
    its part with a kernel of low accuracy (https://github.com/pytorch/pytorch/issues/188792): results were wrong by
    1e-4 in one of 25 trials with two threads.
    """
    import torch

    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return
    for kind in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=kind, device="cpu")
        for name in _MKL_FUNCTIONS:
            getattr(torch, name)(number)


def warm_torch() -> None:
    """Do once what torch would do in every trial.

    torch imports modules at the first optimizer and at the choice of deterministic algorithms: 1.3 s each. The first
    operations set up its dispatcher. Those here start no thread, which would not survive a fork: with one thread set,
    torch starts no pool, and without gradients, which start threads where there is CUDA, nothing else does.
    """
    import torch._compile
    import torch._dynamo
    import torch._inductor.config
    import torch._subclasses.fake_tensor
    import torch.optim

    for module in (torch._dynamo.eval_frame, torch._compile, torch.random, torch.cuda.random):
        linecache.getlines(str(module.__file__))  # `torch.manual_seed` records a stack: it reads these for 5 ms

    if not logging.getLogger("torch").isEnabledFor(logging.INFO):  # torch reports at exit what it compiled, if asked to
        for module, name in (
            (torch._dynamo.utils, "dump_compile_times"),
            (torch._dynamo.eval_frame, "_log_traced_frames"),
            (torch._subclasses.fake_tensor, "dump_cache_stats"),
        ):
            atexit.unregister(getattr(module, name, print))  # not every version of torch has them

    torch.set_num_threads(1)
    with torch.no_grad():
        float(torch.nn.functional.linear(*(torch.ones(3, 3, device="cpu") for _ in range(2))).relu().sum())
