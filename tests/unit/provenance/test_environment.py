"""What is recorded of git, the interpreter and its packages."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from orchestrator.provenance import git as git_module
from orchestrator.provenance.environment import environment
from orchestrator.provenance.git import GitError, NoRepository
from tests.unit.provenance.support import git, write


def test_the_environment_in_a_repository(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret-0123456789")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", "/bin/false")
    git(repository, "remote", "add", "origin", "https://user:secret-0123456789@example.org/x.git")
    write(repository, {"train.py": "changed = True\n"})
    store = tmp_path / "provenance"
    facts = environment(repository, store)
    assert len(facts["commit"]) == 40
    assert "+changed = True" in (store / facts["change"]).read_text().splitlines()
    assert any(line.startswith("pytest==") for line in (store / facts["packages"]).read_text().splitlines())
    assert facts["python"].count(".") == 2
    assert "problems" not in facts
    stored = json.dumps(facts) + "".join(path.read_text() for path in store.iterdir())
    assert "secret-0123456789" not in stored
    assert environment(repository, store) == facts
    assert len(list(store.iterdir())) == 2


def test_the_environment_outside_git(plain: Path, tmp_path: Path) -> None:
    facts = environment(plain, tmp_path / "provenance")
    assert (facts["commit"], facts["change"], facts.get("problems")) == ("", "", None)


def test_a_repository_without_a_commit(plain: Path, tmp_path: Path) -> None:
    git(plain, "init", "-q")
    facts = environment(plain, tmp_path / "provenance")
    assert (facts["commit"], facts["change"], facts.get("problems")) == ("", "", None)


def test_a_machine_without_git(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment(plain, tmp_path / "provenance")["commit"] == ""


@pytest.mark.fault(
    "code",
    "git refuses",
    "local: the folder belongs to another owner",
    "told and recorded with what to do; not taken for a project without git",
)
def test_git_that_refuses_is_not_taken_for_no_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests use it
    facts = environment(repository, tmp_path / "provenance")
    (problem,) = facts["problems"]
    assert problem.startswith("git distrusts its folder's owner (git config --global --add safe.directory ")
    assert "commit and uncommitted changes are not recorded" in problem


def test_a_diff_that_fails_is_not_taken_for_no_changes(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    write(
        programs,
        {
            "git": '#!/bin/sh\ncase "$*" in *" diff "*) echo "fatal: disk on fire" >&2; exit 128;; esac\n'
            f'exec {git_path()} "$@"\n'
        },
    )
    (programs / "git").chmod((programs / "git").stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    facts = environment(repository, tmp_path / "provenance")
    assert len(facts["commit"]) == 40
    assert facts["problems"] == [
        "git diff fails: disk on fire: uncommitted changes are not recorded; the sweep's copy of the code has the files"
    ]


def git_path() -> str:
    return next(path for folder in os.environ["PATH"].split(":") if os.access(path := f"{folder}/git", os.X_OK))


def test_a_command_that_takes_too_long_is_an_error(repository: Path) -> None:
    git(repository, "config", "alias.wait", "!sleep 2")
    with pytest.raises(GitError, match=r"git wait took more than 0\.1 s"):
        git_module.git(repository, "wait", patience=0.1)
    with pytest.raises(NoRepository):
        git_module.git(repository.parent, "status")


def test_large_and_secret_changes_are_kept_as_names_and_hashes(repository: Path, tmp_path: Path) -> None:
    write(repository, {"shrinks.txt": "a" * 5000, "notes: latin.txt": "x", ".env": "PASSWORD=1"})
    git(repository, "add", "-f", ".", ".env")
    git(repository, "commit", "-qm", "data")
    big = os.urandom(3000)
    (repository / "README.md").write_bytes(big)
    (repository / "notes: latin.txt").write_bytes(b"caf\xe9\n")
    write(repository, {"train.py": "changed = True\n", "shrinks.txt": "", ".env": "PASSWORD=2"})
    store = tmp_path / "provenance"
    change = (store / environment(repository, store, largest_patch=2000)["change"]).read_bytes()
    lines = change.splitlines()
    assert lines[:3] == [
        b"# not kept: .env (may hold secrets)",
        f"# not kept: README.md (too large: 3000 bytes, sha256 {hashlib.sha256(big).hexdigest()})".encode(),
        b"# not kept: shrinks.txt (too large: 0 bytes, sha256 " + hashlib.sha256(b"").hexdigest().encode() + b")",
    ]
    assert b"+changed = True" in lines
    assert b"+caf\xe9" in lines
    assert b"PASSWORD" not in change
    assert len(change) < 2000
    git(repository, "stash", "-q")
    (tmp_path / "patch").write_bytes(change)
    git(repository, "apply", str(tmp_path / "patch"))
    assert (repository / "train.py").read_text() == "changed = True\n"


def test_a_folder_of_a_repository_has_the_changes_of_all_of_it(repository: Path, tmp_path: Path) -> None:
    write(repository, {"pkg/data.py": "SIZE = 2\n", "train.py": "changed = True\n"})
    store = tmp_path / "provenance"
    change = (store / environment(repository / "pkg", store)["change"]).read_text()
    assert "+SIZE = 2" in change
    assert "+changed = True" in change
