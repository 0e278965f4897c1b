"""The shape of the code: floors, sole importers, no cycles, and commands that start without heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from orchestrator.manifest.writer import Manifest
from tests.unit import manifests
from tests.unit.manifests import plan, run, trial_spec

ROOT = Path(__file__).parents[2]
PACKAGE = "orchestrator"

# Imports point to the same floor or down. Floor 0 is data, 1 decisions, 2 edges and the node, 3 the drive, 4 commands.
FLOORS = {
    0: "model errors ports __init__",
    1: """lifecycle failures outlook quarantine naming executors.slots tracking.delivery node.failure
          node.stack node.archive node.kind
          language.space language.search language.search.grid language.search.random language.references
          language.identity language.changes language.template language.axes language.sweepfile""",
    2: """folder provenance trainer_check
          manifest manifest.db manifest.rows manifest.choice manifest.planned manifest.reader manifest.writer
          manifest.ledger
          language language.trouble language.plain language.compose language.source language.shape language.planning
          node node.settings node.places node.processes node.output node.journal node.carrying node.checkpoint
          node.limits node.memory node.run node.seeding node.complaint node.messages node.trial node.warm
          node.zygote node.handover
          node.nursery node.runner
          executors executors.gpus executors.local_executor executors.ray_environment executors.ray_cluster
          executors.ray_watch executors.ray_slot executors.ray_executor
          tracking tracking.wandb_tracker tracking.follower tracking.tracker""",
    3: "coordinator recording resubmission session",
}
SOLE = {
    "sqlite3": {"manifest.db"},
    "ray": {"executors.ray_executor", "executors.ray_cluster", "executors.ray_slot", "executors.ray_watch"},
    "wandb": {"tracking.wandb_tracker"},
    "hydra": {"language.compose"},
    "omegaconf": {"language.compose", "language.plain", "node.settings"},
    "torch": {"node.checkpoint", "node.seeding"},  # where the trainer has loaded it
    "rich": {"cli.view"},
}
EDGES = {
    "language.compose",
    "executors.ray_executor",
    "executors.gpus",
    "tracking.wandb_tracker",
    "manifest.db",
    "provenance",
}
# What the edge to Ray does on a node.
MAY = {("executors.ray_executor", "executors.gpus"), ("executors.ray_executor", "provenance")}
STANDARD_ONLY = {
    "model",
    "errors",
    "ports",
    "lifecycle",
    "failures",
    "outlook",
    "quarantine",
    "naming",
    "folder",
    "coordinator",
}


def name_of(path: Path) -> str:
    """`manifest.db` for orchestrator/manifest/db.py; a package goes by its own name."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


@cache
def imports(module: str, *, lazy: bool = True) -> frozenset[str]:
    """Absolute names of what a module imports; those inside functions too, unless told otherwise."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return frozenset(name for node in _nodes(tree, lazy) for name in _names(node))


def _nodes(tree: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield node
        yield from _nodes(node, lazy)


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(module: str, *, lazy: bool = True) -> set[str]:
    """Our modules that a module imports."""
    found = set()
    for name in imports(module, lazy=lazy):
        if name.partition(".")[0] != PACKAGE:
            continue
        inside = name.partition(".")[2]
        while inside not in MODULES:
            inside = inside.rpartition(".")[0] or "__init__"
        found.add(inside)
    return found


def floor(module: str) -> int:
    if module.partition(".")[0] == "cli":
        return 4
    return next(number for number, names in FLOORS.items() if module in names.split())


def test_every_module_has_a_floor() -> None:
    known = {name for names in FLOORS.values() for name in names.split()}
    assert {name for name in MODULES if name.partition(".")[0] != "cli"} == known


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    above = {other for other in own(module) if floor(other) > floor(module)}
    assert not above, f"{module} is below {above}"


@pytest.mark.parametrize("library", SOLE)
def test_who_imports_a_library(library: str) -> None:
    found = {module for module in MODULES if library in {name.partition(".")[0] for name in imports(module)}}
    assert found == SOLE[library]


def test_there_are_no_cycles() -> None:
    order: list[str] = []
    open_: list[str] = []

    def visit(module: str) -> None:
        assert module not in open_, " → ".join([*open_[open_.index(module) :], module])
        if module in order:
            return
        open_.append(module)
        for other in sorted(own(module) - {module, "__init__"}):
            visit(other)
        order.append(open_.pop())

    for module in MODULES:
        visit(module)


def test_edges_do_not_import_each_other() -> None:
    crossed = {(edge, other) for edge in EDGES for other in own(edge) & EDGES - {edge}}
    assert crossed <= MAY


@pytest.mark.parametrize("module", sorted(STANDARD_ONLY))
def test_the_core_needs_the_standard_library_alone(module: str) -> None:
    foreign = {name.partition(".")[0] for name in imports(module)} - set(sys.stdlib_module_names) - {PACKAGE}
    assert not foreign


def test_the_package_itself_holds_its_version_and_nothing_else() -> None:
    assert imports("__init__") == {"__future__.annotations"} or imports("__init__") == frozenset()
    assert not [
        node for node in ast.walk(ast.parse(MODULES["__init__"].read_text())) if isinstance(node, ast.FunctionDef)
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "trainers").rglob("*.py")), ids=lambda path: path.name)
def test_trainers_import_nothing_of_ours(path: Path) -> None:
    names = {name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for name in _names(node)}
    assert not [name for name in names if name.partition(".")[0] == PACKAGE]


def test_files_stay_short() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in lengths.items() if count > 450} == {}


# ---------------------------------------------------------------- what a command loads


LOADED = """
import contextlib, io, sys
from orchestrator.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    for words in {commands!r}:
        try:
            assert main(words) == 0, words
        except SystemExit as done:
            assert not done.code, words
heavy = {{"ray", "torch", "hydra", "omegaconf", "wandb", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_reading_commands_load_nothing_heavy(tmp_path: Path) -> None:
    folder = manifests.create(tmp_path / "runs")
    manifest = Manifest.open(folder)
    plan(manifest, [trial_spec(1), trial_spec(2)])
    run(manifest, 1, loss=0.5)
    manifest.close()
    commands = [
        ["--help"],
        ["status"],
        ["status", "--json"],
        ["status", "--help"],
        ["trials", "--sort", "loss"],
        ["show", manifests.trial_id(1)],
        ["logs", manifests.trial_id(1)],
        ["failures"],
        ["ls"],
        ["stop"],
    ]
    code = LOADED.format(commands=commands)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
