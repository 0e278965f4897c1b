"""Which results are stale."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.manifest.reader import Reader
from orchestrator.manifest.stale import keep_used
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Restored
from orchestrator.model.exact_json import dumps
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import State
from orchestrator.provenance.code import code_today, keep_code
from tests.unit.manifests import NOW, SUCCESS, begin, plan, trial_id, trial_spec

LOST = Outcome(State.LOST, "lost_worker", "gone", retry=True)
FILES = {
    "train.py": "import net\n\ndef train(cfg):\n    return net.f(1)\n",
    "net.py": "def f(x):\n    return x\n",
    "other.py": "",
    "words.txt": "a",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    edit(tmp_path / "project", FILES)
    return tmp_path / "project"


def edit(project: Path, files: dict[str, str]) -> None:
    project.mkdir(exist_ok=True)
    for name, text in files.items():
        (project / name).write_text(text)


def plan_code(manifest: Manifest, project: Path, count: int = 1) -> int:
    code = keep_code(project, manifest.folder.code)
    trials = [trial_spec(number) for number in range(count)]
    return plan(manifest, trials, code=code.code, provenance={"tree": code.tree})


def attempt(
    manifest: Manifest,
    number: int = 1,
    outcome: Outcome = SUCCESS,
    used: Sequence[str] | None = ("net.py", "train.py"),
    saves: Sequence[int] = (),
    restores: int | None = None,
) -> None:
    """An attempt at trial 0 with the code of the current plan."""
    current = manifest.plans.current()
    assert current is not None
    key = begin(manifest, 0, number, lineage=1 if restores is not None else number, code=current.code)
    with manifest.transaction():
        if restores is not None:
            manifest.attempts.restored(key, number, Restored(restores, f"checkpoints/{restores}", NOW), 1)
        for step in saves:
            manifest.attempts.saved(key, number, Checkpoint(step, f"checkpoints/{step}"), NOW)
        name = keep_used(manifest.folder, dumps(list(used))) if used is not None else ""
        manifest.attempts.close(key, number, outcome, Ended(NOW + 10), name)


def is_stale(manifest: Manifest, reader: Reader) -> bool:
    """As every command says it, and as `--rerun stale` takes it."""
    current = manifest.plans.current()
    assert current is not None
    found = reader.exactly(trial_id(0)).stale
    assert reader.progress().stale == found
    assert reader.trial(trial_id(0)).stale == found
    (row,) = reader.trials()
    assert row.stale == found
    with manifest.transaction():
        manifest.trials.rerun(current.plan, "stale")
    assert bool(manifest.trials.due(current.plan, -1, 10)) == found
    return found


@pytest.mark.parametrize(
    ("files", "stale", "where_unknown"),
    [
        ({"net.py": FILES["net.py"].replace("return x", "return x + 1")}, True, True),
        ({"net.py": '"""About."""\n' + FILES["net.py"]}, True, True),
        ({"net.py": "# A comment.\ndef f(x):\n\n    return (x)  # it\n"}, False, False),
        ({"new.py": "x = 1\n"}, False, True),
        ({"other.py": "x = 1\n"}, False, True),
        ({"words.txt": "b"}, False, False),
    ],
    ids=["code", "docstring", "comment", "new file", "unused file", "unused text"],
)
@pytest.mark.parametrize("known", [True, False])
def test_only_a_change_of_what_was_used_makes_a_result_stale(
    manifest: Manifest,
    reader: Reader,
    project: Path,
    files: dict[str, str],
    stale: bool,
    where_unknown: bool,
    known: bool,
) -> None:
    plan_code(manifest, project)
    attempt(manifest, used=("net.py", "train.py") if known else None)
    edit(project, files)
    plan_code(manifest, project)
    assert is_stale(manifest, reader) == (stale if known else where_unknown)


def test_a_text_that_was_opened_counts_and_a_file_that_is_gone(
    manifest: Manifest, reader: Reader, project: Path
) -> None:
    plan_code(manifest, project)
    attempt(manifest, used=("net.py", "train.py", "words.txt"))
    edit(project, {"words.txt": "b"})
    plan_code(manifest, project)
    assert reader.progress().stale == 1
    edit(project, {"words.txt": "a"})
    plan_code(manifest, project)
    assert reader.progress().stale == 0, "it is as it was"
    (project / "net.py").unlink()
    plan_code(manifest, project)
    assert is_stale(manifest, reader)


def test_what_was_read_from_the_project_itself_counts_as_it_was_then(
    manifest: Manifest, reader: Reader, project: Path
) -> None:
    """The file was edited after the sweep was planned, and the attempt has read the edit."""
    plan_code(manifest, project)
    attempt(manifest, used=("train.py", f"words.txt\0{hashlib.sha256(b'b').hexdigest()}"))
    edit(project, {"net.py": "x = 1\n"})
    plan_code(manifest, project)
    assert reader.progress().stale == 1, "the text is as it was planned, not as it was read"
    assert list(reader.stale_code(code_today(project, manifest.folder.path.parent))) == ["words.txt"]
    edit(project, {"words.txt": "b"})
    plan_code(manifest, project)
    assert not is_stale(manifest, reader)


def test_a_module_beside_the_project_counts_as_it_was_imported(
    manifest: Manifest, reader: Reader, project: Path, tmp_path: Path
) -> None:
    beside = tmp_path / "beside.py"
    beside.write_text("x = 1\n")
    plan_code(manifest, project)
    attempt(manifest, used=("train.py", f"{beside}\0{hashlib.sha256(beside.read_bytes()).hexdigest()}"))
    edit(project, {"other.py": "x = 1\n"})
    plan_code(manifest, project)
    assert reader.progress().stale == 0
    beside.write_text("x = 2\n")
    edit(project, {"other.py": "x = 2\n"})
    plan_code(manifest, project)
    assert reader.progress().stale == 1
    beside.unlink()
    edit(project, {"other.py": "x = 3\n"})
    plan_code(manifest, project)
    assert not is_stale(manifest, reader), "as on another machine: nothing is known of it"


EDIT = {"net.py": "def f(x):\n    return 2 * x\n"}


def test_a_result_that_older_code_has_made_in_part_is_stale(manifest: Manifest, reader: Reader, project: Path) -> None:
    plan_code(manifest, project)
    attempt(manifest, 1, LOST, saves=[5])
    edit(project, EDIT)
    plan_code(manifest, project)
    attempt(manifest, 2, LOST, saves=[7], restores=5)
    attempt(manifest, 3, restores=7)
    assert is_stale(manifest, reader)


def test_what_was_not_restored_does_not_count(manifest: Manifest, reader: Reader, project: Path) -> None:
    """The second attempt with older code came to nothing: what the third one restored was there before."""
    plan_code(manifest, project)
    attempt(manifest, 1, LOST, saves=[5])
    edit(project, EDIT)
    plan_code(manifest, project)
    attempt(manifest, 2, LOST, restores=5)
    edit(project, FILES)
    plan_code(manifest, project)
    attempt(manifest, 3, restores=5)
    assert not is_stale(manifest, reader)


def test_an_attempt_that_began_anew_counts_alone(manifest: Manifest, reader: Reader, project: Path) -> None:
    plan_code(manifest, project)
    attempt(manifest, 1, LOST, saves=[5])
    edit(project, EDIT)
    plan_code(manifest, project)
    attempt(manifest, 2)
    assert not is_stale(manifest, reader)
