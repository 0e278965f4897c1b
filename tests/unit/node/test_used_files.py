"""An attempt says which files of the project it has imported, run or opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.provenance.code import import_path, keep_code
from tests.unit.node.support import Result, order, run

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
    elif cfg.what == "spec":
        from importlib.util import module_from_spec, spec_from_file_location
        spec = spec_from_file_location("a", "conf/a.py")
        spec.loader.exec_module(module_from_spec(spec))
    elif cfg.what == "run_path":
        runpy.run_path("conf/a.py")
    elif cfg.what == "exec":
        exec(open("conf/a.py").read())
    elif cfg.what == "absolute":
        runpy.run_path(os.path.join(os.getcwd(), "conf", "a.py"))
    elif cfg.what == "text":
        open("words.txt").close()
    elif cfg.what == "own":
        (run.dir / "made.py").write_text("x = 1")
        runpy.run_path(str(run.dir / "made.py"))
        os.chdir(run.dir)
        runpy.run_path("made.py")
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
    "conf/a.py": "",
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


def attempt(project: Path, pool: ZygotePool, what: str, start: str = "fork") -> Result:
    tree = keep_code(project, project.parent / "runs" / "s" / "code").path
    wanted = order(project.parent, "train:train", {"what": what}, import_path=import_path(tree), cwd=str(project))
    result = run(replace(wanted, start=start), pool)  # type: ignore[arg-type]
    assert result.ended.exit_code == 0, result.log
    return result


def used(project: Path, pool: ZygotePool, what: str, start: str = "fork") -> str:
    return attempt(project, pool, what, start).ended.used


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_is_imported_run_or_opened_is_told(project: Path, pool: ZygotePool, start: str) -> None:
    assert json.loads(used(project, pool, "files", start)) == sorted([*IMPORTED, *OPENED])
    assert json.loads(used(project, pool, "nothing", start)) == IMPORTED, "not what another trial has opened"


@pytest.mark.parametrize("what", ["python", "shell", "spawned", "exit"])
def test_what_cannot_be_seen_is_not_claimed(project: Path, pool: ZygotePool, what: str) -> None:
    assert used(project, pool, what) == ""


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("how", ["spec", "run_path", "exec", "absolute"])
def test_code_that_is_read_from_the_project_itself_is_named(
    project: Path, pool: ZygotePool, how: str, start: str
) -> None:
    """Its path is relative to the working directory, which is the project: an edit of it reaches running trials."""
    (told,) = attempt(project, pool, how, start).notices
    assert told.startswith(
        f"read from the project itself, not from the sweep's copy of the code: {project / 'conf' / 'a.py'}; an edit"
    )


@pytest.mark.parametrize("what", ["files", "own"])
def test_code_of_the_copy_and_what_the_trial_writes_are_not_named(project: Path, pool: ZygotePool, what: str) -> None:
    assert attempt(project, pool, what).notices == []


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_text_of_the_project_that_is_not_as_in_the_copy_counts_as_it_was_read(
    project: Path, pool: ZygotePool, start: str
) -> None:
    tree = keep_code(project, project.parent / "runs" / "s" / "code").path
    wanted = order(project.parent, "train:train", {"what": "text"}, import_path=import_path(tree), cwd=str(project))
    (project / "words.txt").write_text("new")
    try:
        result = run(replace(wanted, start=start), pool)  # type: ignore[arg-type]
    finally:
        (project / "words.txt").write_text("")
    assert json.loads(result.ended.used) == sorted([*IMPORTED, f"words.txt\0{hashlib.sha256(b'new').hexdigest()}"])
    (told,) = result.notices
    assert told.startswith(
        f"read from the project itself, not from the sweep's copy of the code: {project / 'words.txt'};"
    )
