"""The copy of the code that a sweep keeps, and which changes make a result stale."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, ManifestError
from orchestrator.folder.code_changes import changed, code_files
from orchestrator.folder.code_index import index_of
from orchestrator.model.sweep import CodeRules
from orchestrator.provenance import code as project_code
from orchestrator.provenance import code_copy
from orchestrator.provenance.code import Code, check_copy, code_today, import_path, keep_code, link_data, source_hash
from orchestrator.provenance.code_copy import ChangedMeanwhile, missing_data, pack, unpack
from orchestrator.provenance.copy_watch import CopyWatch
from orchestrator.provenance.project_files import USUAL, Limits
from tests.unit.provenance.support import FILES, KEPT, files, git, links, write


def code_hash(project: Path, runs: Path, rules: CodeRules = USUAL) -> str:
    today = code_today(project, runs, rules)
    return source_hash(today.digests, today.live)


def difference(old: Path, project: Path, runs: Path, rules: CodeRules = USUAL) -> str:
    """In words, where nobody knows which files were used."""
    kept, today = code_files(old), code_today(project, runs, rules)
    assert kept is not None
    return project_code.difference(dict.fromkeys(changed(kept, today, None), kept), today)


# ---------------------------------------------------------------- the copy


def test_the_copy_has_the_code_and_links_to_the_data(repository: Path, store: Path) -> None:
    code = keep_code(repository, store)
    assert code.path == store / code.tree
    assert files(code.path) == sorted([*KEPT, ".gitignore", "README.md", "new.py"])
    assert links(code.path) == ["data", "new.log", "out.log"]
    assert (code.path / "train.py").read_text() == FILES["train.py"]
    assert (code.path / "data/big.csv").read_text() == "1,2\n"
    (code.path / "results").mkdir()  # it stays writable
    assert code.left_out["data"] == "git ignores it"


def test_data_that_comes_later_is_linked_when_trials_run_again(repository: Path, store: Path) -> None:
    """As it is for the next sweep; the code stays what it was."""
    code = keep_code(repository, store)
    write(repository, {"later.log": "1", "train.py": "changed"})
    link_data(code.path, repository, store.parent.parent)
    assert links(code.path) == ["data", "later.log", "new.log", "out.log"]
    assert (code.path / "train.py").read_text() == FILES["train.py"]
    check_copy(code.path)
    shutil.rmtree(repository)
    link_data(code.path, repository, store.parent.parent)  # the project is not here any more


def test_what_is_left_out_is_told(repository: Path, store: Path) -> None:
    write(repository, dict.fromkeys([".env", "a.key", "b.key", "c.key", "d.key"], "password"))
    assert keep_code(repository, store, CodeRules(exclude=("docs",))).notes == (
        "left out of the copy of the code: docs, docs/make.py (sweep.code.exclude names it)",
        "never copied, nor linked to: .env, a.key, b.key and 2 more (may hold secrets); "
        "sweep.env names variables that trials get",
    )


def test_a_project_that_is_too_large_is_refused_and_the_biggest_named(plain: Path, store: Path) -> None:
    write(plain, {"big.py": "#" * 2**18})
    with pytest.raises(ConfigError, match=r"the biggest: big\.py \(0\.2 MB\), (?s:.*)sweep\.code: \{exclude"):
        keep_code(plain, store, limits=Limits(total=2**17))
    assert not store.exists()


def test_the_same_content_is_copied_once(plain: Path, store: Path) -> None:
    first = keep_code(plain, store)
    assert keep_code(plain, store) == first
    write(plain, {"train.py": "changed = True\n"})
    second = keep_code(plain, store)
    names = {first.tree, second.tree}
    assert {path.name for path in store.iterdir()} == names | {f"{name}.json" for name in names}
    assert (first.path / "train.py").read_text() == FILES["train.py"]


def test_data_that_came_later_is_linked_too(repository: Path, store: Path) -> None:
    keep_code(repository, store)
    write(repository, {"more.log": "2"})
    assert (keep_code(repository, store).path / "more.log").read_text() == "2"


@pytest.mark.fault(
    "code",
    "a trial overwrites its code",
    "local: a module is changed, another one removed in the copy",
    "`resubmit` refuses, the next `sweep` puts both back; results beside them stay",
)
def test_a_copy_that_a_trial_has_changed_is_never_used_as_it_is(plain: Path, store: Path) -> None:
    code = keep_code(plain, store)
    check_copy(code.path)
    write(code.path, {"train.py": "def train(cfg): return 100\n", "result.csv": "1"})
    (code.path / "pkg/data.py").unlink()
    with pytest.raises(ManifestError, match=r"the copy of the code has changed: pkg/data\.py, train\.py"):
        check_copy(code.path)
    assert keep_code(plain, store) == code
    assert (code.path / "train.py").read_text() == FILES["train.py"]
    assert (code.path / "result.csv").read_text() == "1"
    check_copy(code.path)


def test_a_file_that_changes_between_reading_and_copying_is_noticed(plain: Path, store: Path) -> None:
    code = keep_code(plain, store)
    index = index_of(code.path)
    assert index is not None
    write(plain, {"train.py": "changed = True\n"})
    with pytest.raises(ChangedMeanwhile):
        code_copy.put(store / "other", index, {name: str(plain / name) for name in index.files})
    assert not (store / "other").exists()


@pytest.mark.fault(
    "code",
    "the project is written while it is copied",
    "local: a file is rewritten without a pause",
    "the copy is what its name says, or the sweep is refused",
)
def test_the_copy_of_a_project_that_is_being_written_is_named_by_what_it_holds(plain: Path, store: Path) -> None:
    done = threading.Event()

    def edit() -> None:
        number = 0
        while not done.is_set() and number < 20_000:
            number += 1
            (plain / "train.py").write_text(f"number = {number}\n")

    writer = threading.Thread(target=edit)
    writer.start()
    try:
        kept = [_kept(plain, store) for _ in range(5)]
    finally:
        done.set()
        writer.join()
    for code in filter(None, kept):
        check_copy(code.path)


def _kept(project: Path, store: Path) -> Code | None:
    try:
        return keep_code(project, store)
    except ConfigError:  # "its files change while they are copied"
        return None


@pytest.mark.parametrize("versioned", [False, True])
def test_names_that_are_no_unicode_are_kept_as_they_are(
    plain: Path, store: Path, tmp_path: Path, versioned: bool
) -> None:
    odd = {os.fsdecode(b"caf\xe9.py"): "x = 1\n", os.fsdecode(b"d\xe9/\xc3\xa9.py"): "y = 1\n"}
    write(plain, {**odd, os.fsdecode(b"\xe9/data.png"): ""})
    if versioned:
        write(plain, {".gitignore": "*.png\n"})
        git(plain, "init", "-q")
        git(plain, "add", "caf*")
    kept = keep_code(plain, store)
    unpack(pack(kept.path), tmp_path / "node" / "code")
    for copy in (kept.path, tmp_path / "node" / "code"):
        assert {name: (copy / name).read_text() for name in odd} == odd
        assert os.fsdecode(b"\xe9") in links(copy)
    write(plain, {next(iter(odd)): "x = 2\n"})
    assert code_hash(plain, store.parent.parent) != kept.code
    assert difference(kept.path, plain, store.parent.parent) == "caf\udce9.py +1 −1"


def test_a_file_that_cannot_be_read_is_named(plain: Path, store: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (plain / "pkg/data.py").chmod(0)
    code = keep_code(plain, store)
    assert code.notes == ("pkg/data.py: cannot be read, and is not copied",)


def test_a_copy_that_cannot_be_written_is_an_error(plain: Path, store: Path) -> None:
    write(store.parent, {"code": "a file where the folder should be"})
    with pytest.raises(ManifestError, match="cannot keep a copy"):
        keep_code(plain, store)


def test_trials_import_from_the_copy_and_its_src_folder(tmp_path: Path) -> None:
    assert import_path(tmp_path) == (str(tmp_path),)
    (tmp_path / "src").mkdir()
    assert import_path(tmp_path) == (str(tmp_path), str(tmp_path / "src"))


# ---------------------------------------------------------------- libraries beside the project


@pytest.fixture
def library(tmp_path: Path) -> Path:
    place = tmp_path / "work/mylib"
    write(place, {"mylib/__init__.py": "VALUE = 0.1\n", "tests/test_it.py": "", "data/x.bin": ""})
    return place


@pytest.fixture(params=["PYTHONPATH", "a .pth file", "an editable install"])
def installed(library: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library, as each way to install it leaves it."""
    site = tmp_path / "env/site-packages"
    if request.param == "PYTHONPATH":
        monkeypatch.setenv("PYTHONPATH", str(library))
    elif request.param == "a .pth file":
        write(site, {"mylib.pth": f"# here\nimport sys\n{library}\n"})
    else:
        url = f'{{"dir_info": {{"editable": true}}, "url": "file://{library}"}}'
        write(site, {"mylib-1.dist-info/direct_url.json": url, "mylib-1.dist-info/METADATA": "Name: mylib\n"})
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    return library


def test_a_library_beside_the_project_is_copied(plain: Path, store: Path, installed: Path) -> None:
    code = keep_code(plain, store)
    assert code_hash(plain, store.parent.parent) == code.code
    index = index_of(code.path)
    assert index is not None
    assert index.roots == {"": str(plain), ".libraries/mylib~1": str(installed)}
    assert (code.path / ".libraries/mylib~1/mylib/__init__.py").read_text() == "VALUE = 0.1\n"
    assert ".libraries/mylib~1/data" in links(code.path)
    write(installed, {"tests/test_it.py": "changed"})
    assert code_hash(plain, store.parent.parent) == code.code
    write(installed, {"mylib/__init__.py": "VALUE = 100\n"})
    assert code_hash(plain, store.parent.parent) != code.code
    assert difference(code.path, plain, store.parent.parent) == ".libraries/mylib~1/mylib/__init__.py +1 −1"


def test_a_large_library_is_used_where_it_is_and_an_edit_is_noticed(plain: Path, store: Path, installed: Path) -> None:
    code = keep_code(plain, store, limits=Limits(library=5))
    assert code.notes[0].startswith(f"{installed} is imported from where it is: ")
    assert not (code.path / ".libraries").exists()
    check_copy(code.path)
    write(installed, {"mylib/__init__.py": "VALUE = 100\n"})
    assert keep_code(plain, store, limits=Limits(library=5)).code != code.code
    write(installed, {"mylib/__init__.py": "VALUE = 1000\n"})
    with pytest.raises(ManifestError, match="has changed, and trials import from it where it is"):
        check_copy(code.path)


def test_folders_inside_the_project_and_installed_ones_are_no_libraries(
    plain: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = [str(plain), str(plain / "pkg"), os.path.dirname(os.__file__), "/no/such/folder", ""]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(inside))
    index = index_of(keep_code(plain, store).path)
    assert index is not None
    assert index.roots == {"": str(plain)}


# ---------------------------------------------------------------- what makes a result stale


@pytest.mark.parametrize(
    ("name", "stale"),
    [
        ("train.py", True),
        ("pkg/data.py", True),
        ("pkg/kernel.cu", True),
        ("pkg/fast.so", True),
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
    kind: str, name: str, stale: bool, request: pytest.FixtureRequest, store: Path
) -> None:
    project: Path = request.getfixturevalue(kind)
    runs = store.parent.parent
    kept = keep_code(project, store)
    assert code_hash(project, runs) == kept.code
    write(project, {name: "something else\n"})
    assert (code_hash(project, runs) != kept.code) is stale
    assert bool(difference(kept.path, project, runs)) is stale


def test_moving_or_removing_a_file_changes_the_hash(plain: Path, tmp_path: Path) -> None:
    hashes = {code_hash(plain, tmp_path)}
    (plain / "train.py").rename(plain / "train2.py")
    hashes.add(code_hash(plain, tmp_path))
    (plain / "train2.py").unlink()
    assert len(hashes | {code_hash(plain, tmp_path)}) == 3


def test_a_commit_does_not_change_the_hash(repository: Path, tmp_path: Path) -> None:
    before = code_hash(repository, tmp_path)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "second")
    assert code_hash(repository, tmp_path) == before


def test_the_difference_counts_lines_for_each_file(plain: Path, store: Path) -> None:
    old, runs = keep_code(plain, store).path, store.parent.parent
    assert difference(old, plain, runs) == ""
    write(plain, {"train.py": FILES["train.py"].replace("pass", "return 1\n    ++x")})
    assert difference(old, plain, runs) == "train.py +2 −1"
    (plain / "pkg/data.py").unlink()
    write(plain, {"a.py": "1\n2\n", "b.py": "1\n"})
    assert difference(old, plain, runs) == "a.py +2 −0, b.py +1 −0, pkg/data.py +0 −1, and 1 more"
    assert (
        difference(old, plain, runs, CodeRules(exclude=("[ab].py", "pkg/data.py")))
        == "pkg/data.py +0 −1, train.py +2 −1"
    )


def test_what_was_read_elsewhere_and_is_not_kept_has_no_lines(plain: Path, store: Path) -> None:
    kept, today = code_files(keep_code(plain, store).path), code_today(plain, store.parent.parent)
    assert kept is not None
    differing = {"train.py": kept, "/beside/lib.py": kept}
    assert project_code.difference(differing, today) == "train.py, /beside/lib.py"
    assert list(project_code.code_diff(differing, today)) == [
        f"{name} has changed: trials read it where it is, and what they read is not kept" for name in differing
    ]


# ---------------------------------------------------------------- sent to a node


def test_a_packed_copy_unpacks_to_the_same_files(plain: Path, store: Path, tmp_path: Path) -> None:
    script = plain / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.utime(plain / "train.py", (0, 0))  # earlier than many archives can express
    write(plain, {"data/x.bin": "large", "gone/y.bin": ""})
    copy = keep_code(plain, store).path
    write(copy, {"result.csv": "of a trial", "__pycache__/train.pyc": ""})
    packed, node = pack(copy), tmp_path / "node" / "code"
    assert b"large" not in packed
    shutil.rmtree(plain / "gone")
    unpack(packed, node)
    assert files(node) == sorted([*KEPT, "run.sh"])
    assert (node / "train.py").read_text() == FILES["train.py"]
    assert os.access(node / "run.sh", os.X_OK)
    assert (node / "data/x.bin").read_text() == "large"
    assert missing_data(node) == ["gone"]
    assert not (node / "gone").exists()
    write(node, {"train.py": "changed by a trial\n"})
    unpack(packed, node)
    assert (node / "train.py").read_text() == FILES["train.py"]
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == ["code", "code.json"]


# ---------------------------------------------------------------- what trials write into it


def test_what_trials_write_beside_their_code_is_noted_once(repository: Path, store: Path) -> None:
    tree = keep_code(repository, store).path
    write(tree, {"from_an_earlier_run.csv": ""})
    watch = CopyWatch(tree)
    assert watch.news(last=True) == []
    write(tree, {"pkg/result.csv": "1", "figures/1.png": "", "__pycache__/train.pyc": "", "data/more.csv": ""})
    assert watch.news(last=True) == [
        f"figures, pkg/result.csv in {tree}: written by a trial beside its code; no part of the code"
    ]
    write(tree, {"pkg/result.csv": "2", "train.py": "def train(cfg): return 100\n"})
    assert watch.news(last=True) == [
        f"train.py in {tree}: a trial has changed this code; later trials may import it so"
    ]
    assert watch.news(last=True) == []
    (tree / "new.py").unlink()
    assert "new.py in " in watch.news(last=True)[0]
    assert watch.news(last=True) == []
