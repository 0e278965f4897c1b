"""Has a trial import from the sweep's copy of the code, whatever names the project's own folders on `sys.path`.

The working directory, `.pth` files, editable installs and the trainer itself do. A folder of the project on `sys.path`
stands for the same folder of the copy, and a module that a library's finder has found in the project is taken from the
copy. What is imported from elsewhere, and is no installed package, is named: an edit of it reaches running trials.
"""

from __future__ import annotations

import itertools
import os
import sys
import sysconfig
from collections.abc import Callable, Sequence
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from multiprocessing import spawn
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator import naming
from orchestrator.files import PACKAGE
from orchestrator.folder.code_index import Index, index_of
from orchestrator.node.inside import used_files

_STANDARD = (BuiltinImporter, FrozenImporter, PathFinder)

_ABOVE = 2  # folders above a copy that belong to its sweep

_copy: _Copy | None = None


def import_from_copy(import_path: Sequence[str]) -> None:
    """Begin with it. Nothing happens where the first of these folders is no copy, as with `orchestrate try`."""
    global _copy
    tree = import_path[0] if import_path else ""
    index = index_of(Path(tree)) if tree else None
    if index is None or (_copy is not None and _copy.tree == tree):
        return
    _copy = _Copy(tree, index)
    used_files.watch(tree, index)
    hook = _copy.path_hook
    sys.path_hooks.insert(0, hook)
    for entry in list(sys.path_importer_cache):
        if _copy.of_entry(entry) is not None:
            del sys.path_importer_cache[entry]
    if any(finder not in _STANDARD and not _is_harmless(finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Redirector(_copy))
    sys.meta_path.append(_Explainer(_copy))
    _reach_spawned(tuple(import_path))


_IN_SPAWNED = """
import sys
sys.path.insert(0, {root!r})
from orchestrator.node.inside import imports
del sys.path[0]
imports.import_from_copy({import_path!r})
"""


class _First:
    """Part of what `multiprocessing` sends to a process that it spawns: it begins with this."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> Any:
        return exec, (self._text, {})


def _reach_spawned(import_path: tuple[str, ...]) -> None:
    """Have processes that `multiprocessing` spawns import from the copy too: they import the trainer's module anew."""
    prepared = spawn.get_preparation_data
    first = _First(_IN_SPAWNED.format(root=os.path.dirname(PACKAGE), import_path=import_path))

    def preparation_data(name: str) -> dict[str, Any]:
        used_files.cannot_know()  # what a process imports that knows nothing of this one
        return {**prepared(name), "": first}

    spawn.get_preparation_data = preparation_data


def look_at_modules() -> None:
    """Look where the modules are from that were imported since the last time; to look at others costs forks."""
    if _copy is not None and len(sys.modules) != _copy.looked_at:
        _copy.look_at_modules()


def name_live_modules(notice: Callable[[str], None]) -> None:
    """Say which modules come neither from the copy nor from installed packages."""
    if _copy is not None:
        look_at_modules()
        if _copy.live:
            names = sorted(_copy.live)
            place = _copy.live[names[0]]
            notice(
                f"imported from where they are, not from the sweep's copy of the code: {naming.some(names)} "
                f"({place}); an edit of them reaches running trials"
            )


def _is_harmless(finder: object) -> bool:
    """Finders of setuptools and six, which most environments have: they lead to no project."""
    return type(finder).__module__.partition(".")[0] in ("_distutils_hack", "six")


class _Copy:
    """The copy of the code, and what it is a copy of."""

    def __init__(self, tree: str, index: Index) -> None:
        self.tree, self.index = tree, index
        roots = {live.rstrip(os.sep): os.path.join(tree, name) if name else tree for name, live in index.roots.items()}
        self.roots = dict(sorted(roots.items(), key=lambda pair: -len(pair[0])))  # an inner folder before its outer one
        self.live: dict[str, str] = {}  # module -> its file
        self.looked_at = len(sys.modules)  # of them, in their order
        libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sys.prefix, sys.base_prefix)
        self._installed = tuple({os.path.realpath(each) + os.sep for each in (*libraries, PACKAGE)})

    def of(self, path: str) -> str | None:
        """The same path in the copy; None if it is not there."""
        for live, copy in self.roots.items():
            if path == live or path.startswith(live + os.sep):
                moved = copy + path[len(live) :]
                return moved if not (path + os.sep).startswith(PACKAGE + os.sep) and os.path.exists(moved) else None
        return None

    def of_entry(self, entry: str) -> str | None:
        """The same for an entry of `sys.path`, which may be relative, or lead through links."""
        if entry == self.tree or entry.startswith(self.tree + os.sep):
            return None
        real = os.path.realpath(entry)
        meant = self._counted_from_copy(real)
        if meant is not None:
            return self.of(meant) or meant
        return self.of(entry) or self.of(real)

    def _counted_from_copy(self, real: str) -> str | None:
        """What a trainer means that counts folders from its own file, as by `Path(__file__).parents[3] / "libs"`.

        A folder so far above the copy stands for the one that is as far above the project.
        """
        project = self.index.roots.get("", self.tree)
        above, meant = os.path.realpath(self.tree), project
        for steps in itertools.count(1):
            above, meant = os.path.dirname(above), os.path.dirname(meant)
            if (project + "/").startswith(above.rstrip("/") + "/"):
                break  # the project is in there too, so its own path leads to all that it can mean
            if (real + "/").startswith(above + "/"):
                place = meant + real[len(above) :]
                in_sweep = real == above and steps <= _ABOVE  # nobody means the folders of the sweep
                return place if in_sweep or (os.path.isdir(place) and not os.path.exists(real)) else None
        return None

    def path_hook(self, entry: str) -> Any:
        """For `sys.path_hooks`: what finds modules in this folder."""
        moved = self.of_entry(entry)
        if moved is not None:
            for hook in sys.path_hooks:
                if hook != self.path_hook:
                    try:
                        return hook(moved)
                    except ImportError:
                        continue
        raise ImportError(f"{entry} has no copy", path=entry)

    def look_at_modules(self) -> None:
        new = itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - self.looked_at))
        for name in list(new):
            file = getattr(sys.modules.get(name), "__file__", None)
            if isinstance(file, str) and name != "__main__" and self._is_live(file):
                self.live[name] = file
                used_files.saw_module(file)
        self.looked_at = len(sys.modules)

    def _is_live(self, file: str) -> bool:
        if "/site-packages/" in file or "/dist-packages/" in file or file.startswith(self._installed):
            return False
        real = os.path.realpath(file)
        if real.startswith((*self._installed, os.path.realpath(self.tree) + os.sep)):
            return False
        in_archive = os.path.isabs(file) and not os.path.exists(os.path.dirname(real))
        return in_archive or os.path.isfile(real)


class _Redirector:
    """Takes modules from the copy that other finders, those of editable installs, have found in the project."""

    def __init__(self, copy: _Copy) -> None:
        self._copy = copy
        self._asked: set[str] = set()  # a finder may ask all others, and so this one

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._asked:
            return None
        self._asked.add(name)
        try:
            for finder in sys.meta_path:
                if finder is not self and not isinstance(finder, _Explainer):
                    spec = finder.find_spec(name, path, target)
                    if spec is not None:
                        return self._moved(spec)
        finally:
            self._asked.discard(name)
        return None

    def _moved(self, spec: ModuleSpec) -> ModuleSpec:
        folders = spec.submodule_search_locations
        moved = self._copy.of(spec.origin) if spec.origin and spec.has_location else None
        if moved is not None:
            inside = [self._copy.of(folder) or folder for folder in folders] if folders is not None else None
            return spec_from_file_location(spec.name, moved, submodule_search_locations=inside) or spec
        return spec


class _Explainer:
    """Asked last: says of a module that the project has why the copy does not."""

    def __init__(self, copy: _Copy) -> None:
        self._copy = copy

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        below = name.replace(".", "/")
        for root, live in self._copy.index.roots.items():
            for place in ("", "src/"):
                why = self._why(os.path.join(root, place + below), os.path.join(live, place + below))
                if why:
                    raise ModuleNotFoundError(f"No module named {name!r}: {why}", name=name)
        return None

    def _why(self, name: str, live: str) -> str | None:
        if self._is_left_out(name, live):
            for part in (name + ".py", name + "/__init__.py", *_and_parents(name)):
                if part in self._copy.index.left_out:
                    return f"{part} is not in the sweep's copy of the code: {self._copy.index.left_out[part]}"
            return f"{name} is not in the sweep's copy of the code: it was not there when the sweep was planned"
        if os.path.isdir(live) and not os.listdir(live) and name in _submodules(self._copy):
            return f"{name} is a git submodule that is not checked out (git submodule update --init)"
        return None

    def _is_left_out(self, name: str, live: str) -> bool:
        """Whether the project has this module, and the copy does not, as far as this machine knows."""
        index = self._copy.index
        for ending in (".py", "/__init__.py"):
            if (name + ending in index.left_out or os.path.isfile(live + ending)) and name + ending not in index.files:
                return True
        return os.path.isdir(live) and any(file.endswith(".py") for file in os.listdir(live))


def _and_parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _submodules(copy: _Copy) -> str:
    """What says which submodules the project has."""
    try:
        return Path(copy.tree, ".gitmodules").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
