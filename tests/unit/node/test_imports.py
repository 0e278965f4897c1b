"""A trial imports from the sweep's copy of the code, whatever names the project's own folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.coordinator.trainer_check import TrainerCheck
from orchestrator.errors import TrainerError
from orchestrator.model.order import Order
from orchestrator.model.sweep import CodeRules
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared.zygote_spec import ZygoteSpec
from orchestrator.provenance.code import import_path, keep_code
from orchestrator.provenance.project_files import USUAL
from tests.unit.node.support import order, run

FILES = {
    "project/train.py": """
import multiprocessing, os, sys
sys.path.insert(0, os.getcwd())
sys.path.insert(0, "libs/flat")
sys.path.append(os.environ["ELSEWHERE"])
import beside, flat, namespace.deep, edit, edit.sub, beyond, redirected

def values():
    return [module.VALUE for module in (beside, flat, namespace.deep, edit, edit.sub, beyond, redirected)]

def train(cfg, run):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(set(pool.apply(values)))
    sys.path.insert(0, os.path.join(os.getcwd(), "more"))
    import late, edit.lazy
    used = [beside, flat, namespace.deep, edit, edit.sub, beyond, redirected, late, edit.lazy]
    print({module.__name__: module.VALUE for module in used})
    print(all(module.__file__.startswith(os.path.dirname(__file__)) for module in used))
    open(os.path.join(os.path.dirname(__file__), "result.csv"), "w").close()
""",
    "project/beside.py": "VALUE = 0.1\n",
    "project/more/late.py": "VALUE = 0.1\n",
    "project/namespace/deep.py": "VALUE = 0.1\n",
    "project/libs/flat/flat.py": "VALUE = 0.1\n",
    "project/libs/edit/edit/__init__.py": "VALUE = 0.1\n",
    "project/libs/edit/edit/sub.py": "VALUE = 0.1\n",
    "project/libs/edit/edit/lazy.py": "VALUE = 0.1\n",
    "project/libs/other/redirected.py": "VALUE = 0.1\n",
    "beyond/beyond.py": "VALUE = 0.1\n",
    "elsewhere/unkept.py": "VALUE = 0.1\n",
    "above.py": "VALUE = 0.1\n",
    "project/live.py": """
import os, sys
from pathlib import Path
sys.path.append(os.environ["ELSEWHERE"])
sys.path.append(str(Path(__file__).parents[1]))
import above, unkept
def train(cfg, run):
    pass
""",
    "project/absent.py": """
import importlib, importlib.util
def train(cfg, run):
    for name in ("lib.core", "big", "fresh", "no_such_module", "outputs.made"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            print(error)
    print(importlib.util.find_spec("no_such_module"))
""",
    "project/lib/core.py": "",
    "project/outputs/made.py": "",
    # What setuptools leaves for an editable install, as far as imports are concerned.
    "site/sitecustomize.py": """
import os, sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location
project = os.environ["PROJECT"]
class Finder:
    names = {"edit": f"{project}/libs/edit/edit/__init__.py", "redirected": f"{project}/libs/other/redirected.py"}
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in cls.names:
            return spec_from_file_location(name, cls.names[name])
sys.meta_path.append(Finder)
""",
}
MODULES = ("beside", "flat", "namespace.deep", "edit", "edit.sub", "beyond", "redirected", "late", "edit.lazy")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("PROJECT", str(tmp_path / "project"))
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    entries = [str(tmp_path / "site"), str(tmp_path / "beyond"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, entries)))
    return tmp_path / "project"


@pytest.fixture
def pool(project: Path) -> Iterator[ZygotePool]:
    """A zygote that sees the environment of the fixture above."""
    opened = ZygotePool()
    yield opened
    opened.close()


def kept(project: Path, trainer: str, rules: CodeRules = USUAL) -> Order:
    """An order for a trainer of the project, which has a copy."""
    tree = keep_code(project, project.parent / "runs" / "s" / "code", rules).path
    return order(project.parent, trainer, import_path=import_path(tree), cwd=str(project))


@pytest.mark.fault(
    "code",
    "every module is edited after the start",
    "local: modules that the working directory, a relative path, an editable install and PYTHONPATH lead to",
    "the trial computes with the code that was kept",
)
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_an_edit_never_reaches_a_trial(project: Path, pool: ZygotePool, start: str) -> None:
    wanted = kept(project, "train:train")
    for name, text in FILES.items():
        if text.startswith("VALUE"):
            (project.parent / name).write_text("VALUE = 100\n")
    result = run(Order(**{**vars(wanted), "start": start}), pool)
    assert result.ended.failure is None, result.ended.failure
    assert result.log == f"{ {0.1} }\n{dict.fromkeys(MODULES, 0.1)}\nTrue\n"
    assert result.notices == []
    assert (Path(wanted.import_path[0]) / "result.csv").exists()


def test_modules_from_elsewhere_are_named(project: Path, pool: ZygotePool) -> None:
    result = run(kept(project, "live:train"), pool)
    (notice,) = result.notices
    assert notice.startswith("imported from where they are, not from the sweep's copy of the code: above, unkept (")
    for file in (project.parent / "above.py", project.parent / "elsewhere" / "unkept.py"):
        assert f"{file}\0{hashlib.sha256(file.read_bytes()).hexdigest()}" in json.loads(result.ended.used)


IN_A_REPOSITORY = """
import sys
from pathlib import Path
TOP = Path(__file__).resolve().parents[4]
sys.path += [str(TOP / "libs" / "common"), str(TOP)]
import common, top
def train(cfg, run):
    print(common.__file__, top.__file__)
"""


def test_folders_above_the_project_are_found_from_the_copy(project: Path, pool: ZygotePool) -> None:
    """A trainer counts them from its own file, where a repository has several projects and libraries."""
    repository = project.parent / "repository"
    beside = [repository / "libs" / "common" / "common.py", repository / "top.py"]
    trainer = repository / "apps" / "one" / "src" / "app" / "monorepo.py"
    for path in (*beside, trainer):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(IN_A_REPOSITORY if path == trainer else "")
    result = run(kept(trainer.parents[2], "app.monorepo:train"), pool)
    assert result.log.split() == list(map(str, beside))
    assert "common, top" in result.notices[0]


def test_a_module_that_is_not_in_the_copy_says_why(project: Path, pool: ZygotePool) -> None:
    (project / "big.py").write_text("")
    (project / "outputs/data.txt").write_text("")
    wanted = kept(project, "absent:train", CodeRules(exclude=("lib", "big.py")))
    (project / "fresh.py").write_text("")
    (Path(wanted.import_path[0]) / "outputs").unlink()  # as on a node that has no data of the project
    absent = "is not in the sweep's copy of the code"
    assert run(wanted, pool).log.splitlines() == [
        f"No module named 'lib': lib {absent}: sweep.code.exclude names it",
        f"No module named 'big': big.py {absent}: sweep.code.exclude names it",
        f"No module named 'fresh': fresh {absent}: it was not there when the sweep was planned",
        "No module named 'no_such_module'",
        f"No module named 'outputs': outputs {absent}: folders of this name are not searched for source files",
        "None",
    ]


def test_the_check_of_a_trainer_says_why_it_is_not_in_the_copy(project: Path) -> None:
    wanted = kept(project, "train:train", CodeRules(exclude=("beside.py",)))
    check = TrainerCheck(ZygoteSpec.of(wanted, ()))
    with pytest.raises(TrainerError) as caught:
        check.result()
    check.close()
    assert str(caught.value) == (
        "sweep.trainer (train:train): cannot be imported: train.py:6: No module named 'beside': "
        "beside.py is not in the sweep's copy of the code: sweep.code.exclude names it"
    )


def test_without_an_index_nothing_is_changed(project: Path, pool: ZygotePool) -> None:
    """As with `orchestrate try`, and for a sweep that version 0.1 began."""
    wanted = order(project.parent, "train:train", import_path=(str(project),), cwd=str(project))
    assert run(wanted, pool).log.splitlines()[1] == str(dict.fromkeys(MODULES, 0.1))
