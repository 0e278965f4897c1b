"""Rules that `lint-imports` cannot check: modules without libraries, contents of files, what a command imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.manifest.writer import Manifest
from tests.unit import manifests
from tests.unit.manifests import plan, run, trial_spec

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "orchestrator"

# Decisions, and modules that are imported before any large library may be.
STANDARD_ONLY = (
    "model",
    "decide",
    "search",
    "folder",
    "ports",
    "errors",
    "naming",
    "files",
    "coordinator/loop",
    "coordinator/trial_source",
)
LONGEST = 400  # lines of a file


def modules(*below: str) -> list[Path]:
    found = [path for name in below for path in (PACKAGE / name).rglob("*.py")]
    return sorted(found + [PACKAGE / f"{name}.py" for name in below if (PACKAGE / f"{name}.py").is_file()])


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("path", modules(*STANDARD_ONLY), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_core_needs_only_the_standard_library(path: Path) -> None:
    assert imported(path) <= {*sys.stdlib_module_names, PACKAGE.name}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_an_init_file_contains_only_a_docstring(path: Path) -> None:
    docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert ast.literal_eval(docstring.value)
    version = [isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__" for node in rest]
    assert version == ([True] if path.parent == PACKAGE else [])


@pytest.mark.parametrize("path", sorted((ROOT / "trainers").rglob("*.py")), ids=lambda path: path.name)
def test_trainers_import_nothing_from_orchestrator(path: Path) -> None:
    assert PACKAGE.name not in imported(path)


def test_files_stay_short() -> None:
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lengths.items() if count > LONGEST} == {}


# ---------------------------------------------------------------- what a command imports


LOADED = """
import contextlib, io, sys
from orchestrator.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    for words in {commands!r}:
        try:
            assert main(words) == 0, words
        except SystemExit as ended:
            assert not ended.code, words
heavy = {{"ray", "torch", "hydra", "omegaconf", "wandb", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_reading_commands_import_no_large_library(tmp_path: Path) -> None:
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
