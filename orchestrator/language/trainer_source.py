"""What the source of a trainer says, read without importing it: where its function is, and what `@hydra.main` asks for.

Only what is certain is called a problem. Where a module does something that cannot be read from its source, the import
at the start of a sweep decides.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.errors import TrainerError, nearest
from orchestrator.interpreter import import_folders
from orchestrator.model.trainer import CALLED, GENERATOR, Function

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
OLDEST, NEWEST = "1.1", "1.3"  # what Hydra takes where `version_base` is not given, and where it is None
_LONGEST_CHAIN = 8  # imports that are followed to find where a function is defined
_DYNAMIC = ("globals", "exec", "eval", "setattr", "vars", "locals", "__import__")  # calls that may define any name


@dataclass(frozen=True)
class Module:
    """The source of a module of the project."""

    name: str
    file: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]

    @cached_property
    def hydra_names(self) -> set[str]:
        """The names under which it imports Hydra."""
        imports = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import)]
        return {each.asname or "hydra" for node in imports for each in node.names if each.name == "hydra"}

    @cached_property
    def main_names(self) -> set[str]:
        """The names under which it imports `hydra.main`."""
        imports = [node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom) and node.module == "hydra"]
        return {each.asname or each.name for node in imports for each in node.names if each.name == "main"}


def find_module(name: str, project: Path) -> Module | None:
    """A module of the project; None if the project has no such file. Raises TrainerError if it cannot be parsed."""
    parts = name.split(".")
    for folder in import_folders(project):
        place = folder.joinpath(*parts)
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return Module(name, file, _parsed(file, project))
    return None


def _parsed(file: Path, project: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        where = f"{file.relative_to(project)}:{error.lineno}"
        raise TrainerError(f"not valid Python: {error.msg}", where=where, fix="mend it") from None
    except (OSError, ValueError):  # unreadable, or bytes that are no source: the import says what is wrong
        return ast.parse("")


# ---------------------------------------------------------------- @hydra.main


@dataclass(frozen=True)
class App:
    """What a trainer's source says of it as a Hydra application."""

    version_base: str | None = None  # None: not known
    uses_hydra: bool = False  # whether its module imports Hydra
    decorated: bool = False  # whether it has a `@hydra.main`


def app_of(trainer: Function, project: Path) -> App:
    """What `@hydra.main` of the trainer's function says, or else the only one in its module."""
    try:
        module = find_module(trainer.module, project)
        if module is None:
            return App()
        home, definition = _definition(module, trainer.name, project)
    except TrainerError:
        return App()
    modules = [module] if home is module else [module, home]
    own = [d for d in getattr(definition, "decorator_list", ()) if _is_hydra_main(d, home)]
    calls = [(call, home) for call in own]
    calls = calls or [(call, each) for each in modules for call in _hydra_main_calls(each)]
    versions = {_version_of(call, each.tree) for call, each in calls}
    uses = any(_imports_hydra(each.tree) for each in modules)
    return App(versions.pop() if len(versions) == 1 else None, uses, bool(calls))


def _definition(module: Module, name: str, project: Path) -> tuple[Module, Definition | None]:
    """The module that defines a name, and the definition; follows imports of the project's own modules."""
    for _ in range(_LONGEST_CHAIN):
        found = [node for node in _bindings(module.tree) if name in _names(node)]
        if len(found) != 1:
            return module, None
        node = found[0]
        if isinstance(node, _DEFINITIONS):
            return module, node
        if not isinstance(node, ast.ImportFrom):
            return module, None
        if node.level and not module.package:
            return module, None
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), module.package or None)
        further = find_module(base, project)
        if further is None:
            return module, None
        name = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        module = further
    return module, None


def _imports_hydra(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "hydra" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "hydra")
        for node in ast.walk(tree)
    )


def _hydra_main_calls(module: Module) -> Iterator[ast.expr]:
    """Every `hydra.main(...)`, as a decorator or called."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _is_hydra_main(node, module):
            yield node


def _is_hydra_main(node: ast.expr, module: Module) -> bool:
    function = node.func if isinstance(node, ast.Call) else node
    if isinstance(function, ast.Attribute):
        known = isinstance(function.value, ast.Name) and function.value.id in module.hydra_names
        return function.attr == "main" and known
    return isinstance(function, ast.Name) and function.id in module.main_names


def _version_of(node: ast.expr, tree: ast.Module) -> str | None:
    """The `version_base` of a `hydra.main(...)`: "1.1" where it is left out, as in Hydra. None: it cannot be read."""
    call = node if isinstance(node, ast.Call) else None
    if call is None:
        return OLDEST
    if any(isinstance(item, ast.Starred) for item in call.args) or any(item.arg is None for item in call.keywords):
        return None
    given = [item.value for item in call.keywords if item.arg == "version_base"] or call.args[2:3]
    if not given:
        return OLDEST
    value = _constant(given[0], tree)
    if not isinstance(value, ast.Constant) or not isinstance(value.value, (str, type(None))):
        return None
    return ".".join(value.value.split(".")[:2]) if value.value else NEWEST


def _constant(value: ast.expr, tree: ast.Module) -> ast.expr:
    """The value itself, or what the only assignment to its name gives."""
    if not isinstance(value, ast.Name):
        return value
    assigned = [n for n in ast.walk(tree) if isinstance(n, (ast.Assign, ast.AnnAssign)) and value.id in _names(n)]
    return assigned[0].value if len(assigned) == 1 and assigned[0].value is not None else value


# ---------------------------------------------------------------- what is certainly wrong


def check(trainer: Function, project: Path) -> None:
    """Raise TrainerError if the trainer certainly cannot be imported or called."""
    module = find_module(trainer.module, project)
    if module is None:
        _check_installed(trainer, project)
        return
    home, definition = _definition(module, trainer.name, project)
    if definition is not None:
        if isinstance(definition, _FUNCTIONS):
            plain = all(_is_hydra_main(each, home) for each in definition.decorator_list)
            what, fix = _signature_problem(definition) if plain else ("", "")
            if what:
                raise TrainerError(what, where=str(trainer), fix=fix)
        return
    known = [name for node in _bindings(module.tree) for name in _names(node)]
    known += [name for node in ast.walk(module.tree) if isinstance(node, ast.Global) for name in node.names]
    if trainer.name in known or "*" in known or "__getattr__" in known or _is_dynamic(module.tree):
        return
    functions = [name for node in _bindings(module.tree) if isinstance(node, _DEFINITIONS) for name in _names(node)]
    near = nearest(trainer.name, functions)
    fix = f"did you mean {trainer.module}:{near}?" if near else "name a function as module:function"
    if not functions:
        fix = "its functions are what can be named; put what it does into one: def train(cfg, run): …"
    raise TrainerError(f"{trainer.module} has no function {trainer.name!r}", where=str(trainer), fix=fix)


def _check_installed(trainer: Function, project: Path) -> None:
    """Raise TrainerError if the module is neither in the project nor, as far as one can see, installed."""
    first, _, rest = trainer.module.partition(".")
    own = [folder / first for folder in import_folders(project) if (folder / first).is_dir()]
    if not own:
        if _is_installed(first):
            return
        missing, file = first, f"{first}.py"
    else:
        parts = trainer.module.split(".")
        parents = [folder.joinpath(*parts[:-1]) for folder in import_folders(project)]
        if any(parent.is_dir() and any(parent.glob(f"{parts[-1]}*")) for parent in parents) or any(
            "__path__" in init.read_text(errors="replace") for place in own for init in place.rglob("__init__.py")
        ):
            return  # a compiled module, say
        if _is_installed(first) and not any((place / "__init__.py").is_file() for place in own):
            return  # the folder is no package, so an installed one of this name may come first
        missing, file = trainer.module, f"{trainer.module.replace('.', '/')}.py"
    near = _nearest_module(trainer.module, project) if not rest else None
    fix = f"did you mean {near}:{trainer.name}?" if near else f"is {file} below the folder you run from?"
    raise TrainerError(f"no module named {missing!r}", where=str(trainer), fix=fix)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _nearest_module(name: str, project: Path) -> str | None:
    return nearest(name, [file.stem for folder in import_folders(project) for file in folder.glob("*.py")])


def _signature_problem(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, str]:
    """What is wrong with the parameters of an undecorated function, and what to do; empty if nothing is."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is None:
            return f"needs the argument {item.arg!r}, which orchestrate does not pass", CALLED
    if not arguments.vararg and (required > 2 or not positional):
        return f"takes {required} arguments", CALLED
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in _own_nodes(function)):
        return "is a generator, so a call runs nothing of it", GENERATOR
    return "", ""


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, (*_DEFINITIONS, ast.Lambda, ast.GeneratorExp)):
            yield node
            yield from _own_nodes(node)


def _is_dynamic(tree: ast.Module) -> bool:
    """Whether the module may define names in a way that its source does not show."""
    return any(
        (isinstance(node, ast.Name) and node.id in _DYNAMIC)
        or (isinstance(node, ast.Attribute) and node.attr in ("modules", "__dict__"))
        for node in ast.walk(tree)
    )


def _bindings(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a module that binds a name of the module: also those below `if`, `try`, `with` and the like."""
    for node in ast.iter_child_nodes(tree):
        if _names(node):
            yield node
        if not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            yield from _bindings(node)


def _names(node: ast.AST) -> Sequence[str]:
    """The names that a node binds by itself."""
    if isinstance(node, _DEFINITIONS):
        return (node.name,)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return (node.id,)
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return (node.name,) if node.name else ()
    return ()
