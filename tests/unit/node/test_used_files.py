"""An attempt says which files of the project it has imported, run or opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.provenance.code import import_path, keep_code
from tests.unit.node.support import order, run

FILES = {
    "train.py": """
import os, runpy, subprocess, sys
from pathlib import Path
import beside
HERE = Path(__file__).parent
SETTINGS = (HERE / "settings.json").read_text()

def train(cfg, run):
    if cfg.what in ("files", "again"):
        import late
        open("words.txt").close()
        runpy.run_path(str(HERE / "script.py"))
        os.close(os.open(b"conf/low.yaml", os.O_RDONLY))
        if not (child := os.fork()):
            open("in_a_fork.txt").close()
            os._exit(0)
        os.waitpid(child, 0)
        open("written.txt", "w").write("x")
        open("/dev/null").close()
        subprocess.run(["true", "unused.txt.gz"], check=True)
    elif cfg.what == "python":
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    elif cfg.what == "shell":
        subprocess.run("true; true ./unused.py", shell=True, check=True)
    elif cfg.what == "spawned":
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(abs, (1,))
    elif cfg.what == "exit":
        os._exit(0)
""",
    "beside.py": "",
    "late.py": "",
    "script.py": "",
    "unused.py": "",
    "settings.json": "{}",
    "words.txt": "",
    "written.txt": "",
    "in_a_fork.txt": "",
    "conf/low.yaml": "",
}
IMPORTED = ["beside.py", "settings.json", "train.py"]
OPENED = ["conf/low.yaml", "in_a_fork.txt", "late.py", "script.py", "words.txt"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("used") / "project"
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.fixture(scope="module")
def pool(project: Path) -> Iterator[ZygotePool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
        patch.delenv("PYTHONPATH", raising=False)
        opened = ZygotePool()
        yield opened
        opened.close()


def used(project: Path, pool: ZygotePool, what: str, start: str = "fork") -> str:
    tree = keep_code(project, project.parent / "runs" / "s" / "code").path
    wanted = order(project.parent, "train:train", {"what": what}, import_path=import_path(tree), cwd=str(project))
    ended = run(replace(wanted, start=start), pool).ended  # type: ignore[arg-type]
    assert ended.exit_code == 0
    return ended.used


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_is_imported_run_or_opened_is_told(project: Path, pool: ZygotePool, start: str) -> None:
    assert json.loads(used(project, pool, "files", start)) == sorted([*IMPORTED, *OPENED])
    assert json.loads(used(project, pool, "nothing", start)) == IMPORTED, "not what another trial has opened"


@pytest.mark.parametrize("what", ["python", "shell", "spawned", "exit"])
def test_what_cannot_be_seen_is_not_claimed(project: Path, pool: ZygotePool, what: str) -> None:
    assert used(project, pool, what) == ""
