"""Which files of a project are code: what git tracks, and all that a trial may import."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.model.sweep import CodeRules
from orchestrator.provenance.project_files import Limits, ProjectFiles, project_files
from tests.unit.provenance.support import FILES, KEPT, git, make_repository, write


def test_outside_git_sources_and_texts_are_copied(plain: Path) -> None:
    assert list(project_files(plain).copied) == KEPT


def test_in_git_what_is_tracked_or_new_is_copied(repository: Path) -> None:
    found = project_files(repository)
    assert list(found.copied) == sorted([*KEPT, ".gitignore", "README.md", "new.py"])
    assert sorted(found.linked) == ["data", "new.log", "out.log"]
    assert found.left_out["data"] == "git ignores it"
    assert found.notes == []


def test_a_project_may_be_a_folder_of_a_repository(repository: Path) -> None:
    assert list(project_files(repository / "pkg").copied) == ["data.py", "kernel.cu"]


def test_a_project_that_its_repository_ignores_is_copied(repository: Path) -> None:
    write(repository / "data", {"train.py": ""})
    assert list(project_files(repository / "data").copied) == ["train.py"]


def test_deleted_files_and_dangling_links_are_not_listed(repository: Path) -> None:
    (repository / "train.py").unlink()
    (repository / "dangling.py").symlink_to("nowhere.py")
    assert not {"train.py", "dangling.py"} & project_files(repository).copied.keys()


IGNORED = {
    "pkg/_version.py": "VERSION = 1\n",
    "pkg/message_pb2.py": "",
    "pkg/fast.cpython-311-x86_64-linux-gnu.so": "ELF",
    "pkg/libfast.so.1.2": "ELF",
    "lib/core.py": "",
    "lib/deep/er.py": "",
    "build/lib/a.txt": "",
}


def test_what_git_ignores_is_copied_if_it_can_be_imported(repository: Path) -> None:
    write(repository, {".git/info/exclude": "_version.py\n*_pb2.py\n*.so*\nlib\nbuild\n", **IGNORED})
    assert set(IGNORED) - project_files(repository).copied.keys() == {"build/lib/a.txt"}


def _submodule(project: Path, other: Path) -> None:
    make_repository(other, {"core.py": "", "settings.ini": "", "inner/deep.py": ""})
    git(project, "submodule", "add", "-q", str(other), "lib")
    write(project / "lib", {"fresh.py": "", "out.bin": ""})
    (project / ".git/modules/lib/info/exclude").write_text("*.bin\n")


def _clone(project: Path, other: Path) -> None:
    make_repository(project / "lib", {"core.py": "", "settings.ini": "", "inner/deep.py": ""})
    write(project / "lib", {"fresh.py": "", "out.bin": "", ".git/info/exclude": "*.bin\n"})


def _link(project: Path, other: Path) -> None:
    write(other, {"core.py": "", "settings.cfg": "", "inner/deep.py": "", "fresh.py": "", "out.bin": ""})
    (other / "circle").symlink_to(other)
    (project / "lib").symlink_to(other)


@pytest.mark.parametrize(
    ("make", "settings"), [(_submodule, "ini"), (_clone, "ini"), (_link, "cfg")], ids=["submodule", "clone", "link"]
)
def test_other_code_in_the_project_is_copied(
    repository: Path, tmp_path: Path, make: Callable[[Path, Path], None], settings: str
) -> None:
    make(repository, tmp_path / "other")
    found = project_files(repository)
    in_lib = [name for name in found.copied if name.startswith("lib/") and not name.endswith(".gitignore")]
    assert in_lib == ["lib/core.py", "lib/fresh.py", "lib/inner/deep.py", f"lib/settings.{settings}"]
    assert [name for name in found.linked if name.startswith("lib/")] == ["lib/out.bin"], "nor the .git of a submodule"
    assert found.notes == []


def test_links_that_lead_in_a_circle_or_to_installed_packages_are_not_followed(plain: Path, tmp_path: Path) -> None:
    installed = tmp_path / "env/lib/site-packages/thing"
    write(installed, {"__init__.py": ""})
    write(plain, {"a/x.py": "", "b/y.py": ""})
    (plain / "a/to_b").symlink_to(plain / "b")
    (plain / "b/to_a").symlink_to(plain / "a")
    (plain / "up").symlink_to(plain.parent)
    (plain / "thing").symlink_to(installed)
    found = project_files(plain)
    added = sorted(found.copied.keys() - set(KEPT))
    assert added == ["a/to_b/y.py", "a/x.py", "b/to_a/x.py", "b/y.py"]
    assert found.left_out["thing"] == "it leads to installed packages"


@pytest.mark.parametrize(
    "files",
    [
        {"env/pyvenv.cfg": "", "env/lib/code.py": ""},
        {"miniconda/conda-meta/x.json": "", "miniconda/code.py": ""},
        {"lib/python3/site-packages/code.py": ""},
        {"node_modules/code.py": ""},
        {"sweeps/lr/manifest.db": "", "sweeps/lr/trials/a/files/code.py": ""},
        {"new/manifest.db": "", "new/requests/x": "", "new/code/abc/code.py": ""},
        {"results/lr/code/abc/code.py": ""},
    ],
    ids=lambda files: next(iter(files)),
)
@pytest.mark.parametrize("kind", ["plain", "repository"])
def test_environments_and_the_folder_of_all_sweeps_are_never_copied_or_linked(
    kind: str, files: dict[str, str], request: pytest.FixtureRequest
) -> None:
    project: Path = request.getfixturevalue(kind)
    write(project, files)
    found = project_files(project, apart=[project / "results"])
    assert not [name for name in found.copied if name.endswith("code.py")]
    assert not [link for link in found.linked if any(name.startswith(link) for name in files)]


SECRETS = [".env", ".env.local", "deploy/id_rsa", "deploy/tls.key", ".netrc", "kaggle.json", "secrets.yaml"]


def test_secret_files_are_neither_copied_nor_linked_even_if_git_tracks_them(repository: Path) -> None:
    write(repository, dict.fromkeys([*SECRETS, ".env.example", ".aws/credentials", "data/.env"], "password"))
    git(repository, "add", "-f", *SECRETS, ".aws/credentials")
    found = project_files(repository)
    assert not found.copied.keys() & {*SECRETS, ".aws/credentials"}
    assert not {*found.linked} & {*SECRETS, "deploy", ".aws", ".aws/credentials", "data", "data/.env"}
    assert "data/big.csv" in found.linked
    assert ".env.example" in found.copied
    assert {found.left_out[name] for name in (*SECRETS, ".aws", "data/.env")} == {"may hold secrets"}
    assert "kaggle.json" in project_files(repository, CodeRules(include=("kaggle.json",))).copied
    assert "kaggle.json" not in project_files(repository, CodeRules(include=("*",))).copied


def test_hidden_folders_and_those_of_other_tools_are_searched_only_for_what_git_knows(repository: Path) -> None:
    write(
        repository,
        {
            "tools/wandb/__init__.py": "",
            "outputs/kept.py": "",
            "wandb/run/code.py": "",
            ".cache/x.py": "",
            ".ci/run.py": "",
        },
    )
    git(repository, "add", "outputs", ".ci")
    write(repository, {".git/info/exclude": "wandb\n.cache\n"})
    found = project_files(repository)
    assert {"tools/wandb/__init__.py", "outputs/kept.py", ".ci/run.py"} < found.copied.keys()
    assert not {"wandb/run/code.py", ".cache/x.py"} & found.copied.keys()
    assert found.left_out["wandb"] == "folders of this name are not searched for source files"
    included = project_files(repository, CodeRules(include=("wandb/run/*.py",)))
    assert "wandb/run/code.py" in included.copied


def test_data_is_left_out_and_said_so(plain: Path) -> None:
    write(plain, {"weights.json": "x" * 101, "fits.json": "x" * 100, "model.pt": "", "img/1.png": ""})
    found = project_files(plain, limits=Limits(file=100))
    assert "fits.json" in found.copied
    assert sorted(found.linked) == ["README.md", "img", "model.pt", "weights.json"]
    assert found.left_out["weights.json"] == "0 MB, and no source file"


def test_a_folder_of_many_texts_is_data_and_code_behind_it_is_found(plain: Path) -> None:
    write(plain, {f"many/{number}.json": "" for number in range(6)} | {"many/zoo/code.py": "", "zoo/code.py": ""})
    found = project_files(plain, limits=Limits(texts=5))
    assert {"many/zoo/code.py", "zoo/code.py"} < found.copied.keys()
    assert "many/3.json" in found.linked
    assert found.left_out["many"] == "6 files in it that git does not track: data"


def test_a_search_without_end_is_given_up_and_said_so(repository: Path) -> None:
    write(repository, {f"data/{number}/{number}.csv": "" for number in range(6)} | {"data/5/code.py": ""})
    found = project_files(repository, limits=Limits(entries=8))
    assert "data/5/code.py" not in found.copied
    (note,) = found.notes
    assert note.endswith(": not searched for source files: there are more than 8 others")
    assert project_files(repository, CodeRules(exclude=("data",)), limits=Limits(entries=8)).notes == []


def test_the_sweep_file_has_the_last_word(repository: Path) -> None:
    write(repository, {"data/vocab.txt": "", "data/table.bin": "", "assets/a.bin": "", ".git/info/exclude": "*.bin"})
    rules = CodeRules(include=("data/vocab.txt", "assets", "missing/*"), exclude=("pkg", "docs/*.py", "nothing"))
    found = project_files(repository, rules)
    assert {"data/vocab.txt", "assets/a.bin", "train.py"} < found.copied.keys()
    assert not {"pkg/data.py", "docs/make.py", "data/table.bin"} & found.copied.keys()
    assert "pkg/data.py" not in found.linked, "a link to excluded code could be imported"
    assert found.left_out["docs/make.py"] == "sweep.code.exclude names it"
    assert found.notes == [
        "sweep.code.include: 'missing/*' matches no file",
        "sweep.code.exclude: 'nothing' matches no file",
    ]


def test_names_that_are_not_utf_8(repository: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    write(repository, {name: "", os.fsdecode(b"d\xe9/x.csv"): ""})
    found = project_files(repository)
    assert {name, os.fsdecode(b"d\xe9/x.csv")} < found.copied.keys()


def test_git_that_does_not_answer_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests use it
    found = project_files(repository)
    assert sorted(found.copied) == sorted([*KEPT, "new.py"])
    (note,) = found.notes
    assert note.startswith("git distrusts its folder's owner (git config --global --add safe.directory ")


def test_a_machine_without_git(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert project_files(plain).notes == []
    (plain / ".git").mkdir()
    found: ProjectFiles = project_files(plain)
    assert list(found.copied) == KEPT
    assert "git cannot be run" in found.notes[0]


def test_a_repository_without_a_commit(plain: Path) -> None:
    git(plain, "init", "-q")
    assert "train.py" in project_files(plain).copied
    assert len(FILES) > len(KEPT)
