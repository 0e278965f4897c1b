"""What is kept of the code and the environment, and which changes make a result stale."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, ManifestError
from orchestrator.provenance.code import (
    Limits,
    code_hash,
    content_hash,
    copy_files,
    difference,
    import_path,
    keep_code,
    pack,
    project_files,
    unpack,
)
from orchestrator.provenance.environment import environment

FILES = {
    "train.py": "import data\n\ndef train(cfg):\n    pass\n",
    "pkg/data.py": "SIZE = 1\n",
    "pkg/kernel.cu": "// fast\n",
    "conf/config.yaml": "lr: 1\n",
    "README.md": "# Read me\n",
    "tests/test_train.py": "def test(): pass\n",
    "docs/make.py": "",
    "runs/s/old.py": "",
    ".venv/lib.py": "",
    "pkg/__pycache__/data.pyc": "",
}
KEPT = ["conf/config.yaml", "docs/make.py", "pkg/data.py", "pkg/kernel.cu", "tests/test_train.py", "train.py"]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


@pytest.fixture(autouse=True)
def _own_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git reads no configuration of the user, and finds no repository above the project."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A project outside git."""
    root = tmp_path / "project"
    write(root, FILES)
    return root


@pytest.fixture
def repository(plain: Path) -> Path:
    """The same project in a git repository, with files that git ignores."""
    write(plain, {".gitignore": "*.log\n/data/\n.venv\nruns\n__pycache__\n", "out.log": "", "data/big.csv": "1,2\n"})
    git(plain, "init", "-q")
    git(plain, "add", ".")
    git(plain, "commit", "-qm", "first")
    write(plain, {"new.py": "untracked = True\n", "new.log": ""})
    return plain


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


# ---------------------------------------------------------------- what is kept


def test_outside_git_sources_and_configuration_are_kept(plain: Path, tmp_path: Path) -> None:
    code = keep_code(plain, tmp_path / "store")
    assert files(code.path) == KEPT
    assert (code.path / "train.py").read_text() == FILES["train.py"]
    assert code.path == tmp_path / "store" / code.tree
    assert code.left_out == ()


def test_files_that_git_ignores_are_not_kept(repository: Path, tmp_path: Path) -> None:
    code = keep_code(repository, tmp_path / "store")
    assert files(code.path) == sorted([*KEPT, ".gitignore", "README.md", "new.py"])


def test_a_project_may_be_a_folder_of_a_repository(repository: Path, tmp_path: Path) -> None:
    assert files(keep_code(repository / "pkg", tmp_path / "store").path) == ["data.py", "kernel.cu"]


def test_a_project_that_its_repository_ignores_is_kept(repository: Path, tmp_path: Path) -> None:
    write(repository / "data", {"train.py": ""})
    assert files(keep_code(repository / "data", tmp_path / "store").path) == ["train.py"]


def test_deleted_files_and_dangling_links_are_not_listed(repository: Path) -> None:
    (repository / "train.py").unlink()
    (repository / "dangling.py").symlink_to("nowhere.py")
    assert "train.py" not in project_files(repository)[0]
    assert "dangling.py" not in project_files(repository)[0]


def test_a_file_that_is_removed_after_it_was_listed_is_skipped(plain: Path, tmp_path: Path) -> None:
    """Editors create and remove temporary files."""
    listed = project_files(plain)[0]
    with_removed = [*listed, "4913.py"]
    assert content_hash(plain, with_removed) == content_hash(plain, listed)
    copy_files(plain, with_removed, tmp_path / "copy")
    assert files(tmp_path / "copy") == KEPT


def test_large_files_are_left_out_and_named(plain: Path, tmp_path: Path) -> None:
    write(plain, {"weights.json": "x" * 101, "fits.json": "x" * 100})
    code = keep_code(plain, tmp_path / "store", Limits(file=100))
    assert code.left_out == ("weights.json",)
    assert files(code.path) == sorted([*KEPT, "fits.json"])


def test_a_project_that_is_too_large_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.gitignore"):
        keep_code(plain, tmp_path / "store", Limits(total=50))
    assert not (tmp_path / "store").exists()


def test_the_same_content_is_copied_once(plain: Path, tmp_path: Path) -> None:
    first = keep_code(plain, tmp_path / "store")
    assert keep_code(plain, tmp_path / "store") == first
    write(plain, {"train.py": "changed = True\n"})
    second = keep_code(plain, tmp_path / "store")
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted([first.tree, second.tree])
    assert (first.path / "train.py").read_text() == FILES["train.py"]


def test_a_copy_that_cannot_be_written_is_an_error(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(ManifestError, match="cannot keep a copy"):
        keep_code(plain, tmp_path / "store")


def test_trials_import_from_the_copy_and_its_src_folder(tmp_path: Path) -> None:
    assert import_path(tmp_path) == (str(tmp_path),)
    (tmp_path / "src").mkdir()
    assert import_path(tmp_path) == (str(tmp_path), str(tmp_path / "src"))


# ---------------------------------------------------------------- what makes a result stale


@pytest.mark.parametrize(
    ("name", "stale"),
    [
        ("train.py", True),
        ("pkg/data.py", True),
        ("pkg/kernel.cu", True),
        ("added.py", True),
        ("conf/config.yaml", False),
        ("README.md", False),
        ("tests/test_train.py", False),
        ("docs/make.py", False),
        ("notes.txt", False),
        ("runs/s/old.py", False),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "repository"])
def test_only_sources_make_a_result_stale(
    kind: str, name: str, stale: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    project: Path = request.getfixturevalue(kind)
    kept = keep_code(project, tmp_path / "store")
    assert code_hash(project) == kept.code
    write(project, {name: "something else\n"})
    assert (code_hash(project) != kept.code) is stale
    assert bool(difference(kept.path, project)) is stale


def test_moving_or_removing_a_file_changes_the_hash(plain: Path) -> None:
    before = code_hash(plain)
    (plain / "train.py").rename(plain / "train2.py")
    renamed = code_hash(plain)
    (plain / "train2.py").unlink()
    assert len({before, renamed, code_hash(plain)}) == 3


def test_a_commit_does_not_change_the_hash(repository: Path) -> None:
    before = code_hash(repository)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "second")
    assert code_hash(repository) == before


def test_the_difference_counts_lines_for_each_file(plain: Path, tmp_path: Path) -> None:
    old = keep_code(plain, tmp_path / "store").path
    assert difference(old, plain) == ""
    write(plain, {"train.py": FILES["train.py"].replace("pass", "return 1\n    ++x")})
    assert difference(old, plain) == "train.py +2 −1"
    (plain / "pkg/data.py").unlink()
    write(plain, {"a.py": "1\n2\n", "b.py": "1\n"})
    assert difference(old, plain) == "a.py +2 −0, b.py +1 −0, pkg/data.py +0 −1, and 1 more"


# ---------------------------------------------------------------- sent to a node


def test_a_packed_copy_unpacks_to_the_same_files(plain: Path, tmp_path: Path) -> None:
    script = plain / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.utime(plain / "train.py", (0, 0))  # earlier than a zip file can express
    copy = keep_code(plain, tmp_path / "store").path
    unpack(pack(copy), tmp_path / "node" / "code")
    assert files(tmp_path / "node" / "code") == files(copy)
    assert (tmp_path / "node" / "code" / "train.py").read_text() == FILES["train.py"]
    assert os.access(tmp_path / "node" / "code" / "run.sh", os.X_OK)
    unpack(b"not even a zip", tmp_path / "node" / "code")
    assert [path.name for path in (tmp_path / "node").iterdir()] == ["code"]


@pytest.mark.parametrize("versioned", [False, True])
def test_names_that_are_no_unicode_are_kept_as_they_are(plain: Path, tmp_path: Path, versioned: bool) -> None:
    odd = {os.fsdecode(b"caf\xe9.py"): "x = 1\n", os.fsdecode(b"d\xe9/\xc3\xa9.py"): "y = 1\n"}
    write(plain, odd)
    if versioned:
        git(plain, "init", "-q")
        git(plain, "add", "caf*")
    kept = keep_code(plain, tmp_path / "store")
    unpack(pack(kept.path), tmp_path / "node" / "code")
    for copy in (kept.path, tmp_path / "node" / "code"):
        assert {name: (copy / name).read_text() for name in odd} == odd
    write(plain, {next(iter(odd)): "x = 2\n"})
    assert code_hash(plain) != kept.code
    assert difference(kept.path, plain) == "caf\udce9.py +1 −1"


def test_a_change_is_kept_to_the_byte(repository: Path, tmp_path: Path) -> None:
    """Whatever its encoding, git can apply it again."""
    (repository / "train.py").write_bytes(b"# caf\xe9\n")
    facts = environment(repository, tmp_path / "provenance")
    assert b"+# caf\xe9" in (tmp_path / "provenance" / facts["change"]).read_bytes().splitlines()


# ---------------------------------------------------------------- the environment


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
    stored = json.dumps(facts) + "".join(path.read_text() for path in store.iterdir())
    assert "secret-0123456789" not in stored
    assert environment(repository, store) == facts
    assert len(list(store.iterdir())) == 2


def test_the_environment_outside_git(plain: Path, tmp_path: Path) -> None:
    facts = environment(plain, tmp_path / "provenance")
    assert (facts["commit"], facts["change"]) == ("", "")


def test_a_repository_without_a_commit(plain: Path, tmp_path: Path) -> None:
    git(plain, "init", "-q")
    facts = environment(plain, tmp_path / "provenance")
    assert (facts["commit"], facts["change"]) == ("", "")
    assert "train.py" in project_files(plain)[0]


def test_a_machine_without_git(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment(plain, tmp_path / "provenance")["commit"] == ""
    assert project_files(plain)[0] == KEPT
