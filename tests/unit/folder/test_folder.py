"""A sweep's folder: finding it, creating it, locking it, and sending requests to its coordinator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import LockedError, ManifestError, NotFoundError
from orchestrator.folder.lock import Lock, holder_of
from orchestrator.folder.paths import (
    SweepFolder,
    all_sweeps,
    create_folder,
    discard_folder,
    find_folder,
    runs_root,
)
from orchestrator.folder.requests import Request, answer_request, discard_requests, pending_requests, send_request
from orchestrator.manifest.writer import Manifest
from tests.unit import manifests

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.folder.lock import Lock
from orchestrator.folder.paths import SweepFolder
lock = Lock.take(SweepFolder(Path(sys.argv[1])))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(folder: SweepFolder) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the sweep."""
    with subprocess.Popen([sys.executable, "-c", HOLD, folder.path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


# ---------------------------------------------------------------- finding


def written_sweeps(root: Path, *names: str) -> None:
    """Create sweeps whose last changes are in this order, the oldest first."""
    for age, name in enumerate(reversed(names)):
        path = manifests.create(root, name).manifest
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))


def test_a_sweep_is_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    written_sweeps(root, "alpha", "beta", "gamma")
    monkeypatch.chdir(root)
    assert find_folder(root, None).name == "gamma"
    assert [found.name for found in all_sweeps(root)] == ["gamma", "beta", "alpha"]
    for name in ("beta", "./beta", "beta/", str(root / "beta"), "../runs/beta"):
        assert find_folder(root, name) == SweepFolder(root / "beta")
    monkeypatch.chdir(root / "beta")
    assert find_folder(tmp_path, ".") == SweepFolder(root / "beta")


def test_a_running_sweep_counts_as_changed(tmp_path: Path) -> None:
    written_sweeps(tmp_path, "alpha", "beta")
    (tmp_path / "alpha" / "manifest.db-wal").touch()
    assert find_folder(tmp_path, None).name == "alpha"


def test_the_message_for_an_unknown_sweep_suggests_a_name(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no sweep here yet"):
        find_folder(tmp_path / "nowhere", None)
    written_sweeps(tmp_path, "address-tagging")
    with pytest.raises(NotFoundError, match=r"did you mean address-tagging\?"):
        find_folder(tmp_path, "adress-tagging")
    with pytest.raises(NotFoundError, match="orchestrate ls"):
        find_folder(tmp_path, "zzz")


def test_the_runs_folder_comes_from_option_environment_or_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCHESTRATE_RUNS", raising=False)
    assert runs_root(None) == tmp_path / "runs"
    monkeypatch.setenv("ORCHESTRATE_RUNS", "/elsewhere")
    assert runs_root(None) == Path("/elsewhere")
    assert runs_root("mine") == tmp_path / "mine"


# ---------------------------------------------------------------- creating and discarding


def test_a_new_runs_folder_is_ignored_by_git(tmp_path: Path) -> None:
    folder = create_folder(tmp_path / "runs", "s")
    ignore = tmp_path / "runs" / ".gitignore"
    assert ignore.read_text() == "*\n"
    ignore.write_text("mine\n")
    assert create_folder(tmp_path / "runs", "s") == folder
    assert ignore.read_text() == "mine\n"


@pytest.mark.parametrize("ignored", [None, "*.log\n"])
def test_a_project_that_holds_its_sweeps_itself_is_not_hidden_from_git(tmp_path: Path, ignored: str | None) -> None:
    """`--runs .`: git must see the project, and not the sweeps."""
    for name, text in {"train.py": "", **({".gitignore": ignored} if ignored else {})}.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.iterdir())
    folder = create_folder(tmp_path, "s")
    Manifest.open(folder).close()
    create_folder(tmp_path, "t")
    assert sorted(tmp_path.iterdir()) == sorted([*before, folder.path, tmp_path / "t"])
    assert ignored is None or (tmp_path / ".gitignore").read_text() == ignored
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    seen = subprocess.run(["git", "ls-files", "-o", "--exclude-standard"], cwd=tmp_path, capture_output=True, text=True)
    assert seen.stdout.split() == [path.name for path in before]


def test_an_existing_folder_of_sweeps_is_hidden_and_never_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    manifests.create(tmp_path / "old")
    (tmp_path / "old" / ".gitignore").unlink()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".gitignore").symlink_to(tmp_path / "target")
    for name in ("empty", "old", "linked"):
        create_folder(tmp_path / name, "t")
    assert [(tmp_path / name / ".gitignore").read_text() for name in ("empty", "old")] == ["*\n", "*\n"]
    assert not (tmp_path / "target").exists()


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ManifestError, match="--runs DIR"):
        create_folder(tmp_path / "file", "s")


@pytest.mark.parametrize("root_too", [True, False])
def test_discarding_a_new_sweep_leaves_nothing(tmp_path: Path, root_too: bool) -> None:
    folder = create_folder(tmp_path / "runs", "s")
    Manifest.open(folder).close()
    discard_folder(folder, folder_too=True, root_too=root_too)
    assert [path.name for path in tmp_path.iterdir()] == ([] if root_too else ["runs"])
    assert not folder.path.exists()


def test_discarding_a_sweep_keeps_files_that_are_not_ours(tmp_path: Path) -> None:
    theirs = tmp_path / "runs" / "s" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    folder = create_folder(tmp_path / "runs", "s")
    Manifest.open(folder).close()
    discard_folder(folder, folder_too=False, root_too=False)
    assert theirs.read_text() == "mine"
    assert not folder.manifest.exists()
    another = create_folder(tmp_path / "runs", "t")
    discard_folder(another, folder_too=True, root_too=True)
    assert theirs.exists()


# ---------------------------------------------------------------- the lock


def test_the_lock_is_exclusive_and_its_error_names_the_holder(
    folder: SweepFolder, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(LockedError) as caught:
        Lock.take(folder)
    assert f"pid {holder.pid} on " in str(caught.value)
    assert f"orchestrate stop {folder.argument}" in str(caught.value)
    found = holder_of(folder)
    assert found is not None
    assert found.pid == holder.pid
    assert abs(found.since - time.time()) < 600


def test_the_lock_ends_with_its_process(folder: SweepFolder, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert holder_of(folder) is None
    Lock.take(folder).release()


def test_the_lock_can_be_released(folder: SweepFolder) -> None:
    lock = Lock.take(folder)
    with pytest.raises(LockedError):
        Lock.take(folder)
    lock.release()
    assert holder_of(folder) is None
    assert folder.lock.read_text() == ""
    Lock.take(folder).release()


def test_asking_for_the_holder_does_not_take_the_lock(folder: SweepFolder) -> None:
    assert holder_of(folder) is None
    assert not folder.lock.exists()
    stop = threading.Event()
    seen = []

    def look() -> None:
        while not stop.is_set():
            seen.append(holder_of(folder))

    looking = threading.Thread(target=look)
    looking.start()
    taken = 0
    try:
        while taken < 20 or not seen:
            Lock.take(folder).release()
            taken += 1
    finally:
        stop.set()
        looking.join()
    # 0: the lock was seen before its holder had written its pid
    assert {holder.pid for holder in seen if holder is not None} <= {os.getpid(), 0}


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot write"):
        Lock.take(SweepFolder(tmp_path / "nowhere"))


# ---------------------------------------------------------------- requests


def while_answering(folder: SweepFolder, answers: Callable[[Request], str]) -> threading.Thread:
    """A thread that acts as coordinator: it holds the lock until it has answered one request."""
    lock = Lock.take(folder)

    def coordinate() -> None:
        while True:
            for path, request in pending_requests(folder):
                answer_request(path, answers(request))
                lock.release()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=coordinate)
    thread.start()
    return thread


def test_a_request_is_answered_and_leaves_no_file(folder: SweepFolder) -> None:
    thread = while_answering(folder, lambda request: f"heard {request.kind}")
    assert send_request(folder, {"kind": "stop"}) == "heard stop"
    thread.join()
    assert list(folder.requests.iterdir()) == []


def test_a_request_that_nobody_answers_returns_none(folder: SweepFolder) -> None:
    assert send_request(folder, {"kind": "stop"}) is None, "nobody holds the sweep"
    lock = Lock.take(folder)
    assert send_request(folder, {"kind": "stop"}, timeout=0.1) is None
    lock.release()
    assert list(folder.requests.iterdir()) == []


def test_requests_are_read_in_order_and_damaged_ones_are_deleted(folder: SweepFolder) -> None:
    for name, text in (("3", '{"n": 3}'), ("1", '{"n": 1}'), ("2", "{"), ("4", "[]")):
        (folder.requests / f"{name}.json").write_text(text)
    assert [path.stem for path, _ in pending_requests(folder)] == ["1", "3"]
    assert sorted(path.name for path in folder.requests.iterdir()) == ["1.json", "3.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"kind": "resubmit", "trials": 5}', "trials must be a list of trial ids"),
        ('{"kind": "resubmit", "trials": [5]}', "trials must be a list of trial ids"),
        ('{"kind": "resubmit", "trials": null}', "trials must be a list of trial ids"),
        ('{"kind": "resubmit", "trials": [], "set": [1]}', "set must be a mapping of keys to values"),
        ('{"kind": ["stop"]}', ""),
    ],
)
def test_a_request_has_the_right_types_whatever_is_in_its_file(folder: SweepFolder, text: str, problem: str) -> None:
    (folder.requests / "1.json").write_text(text)
    ((_, request),) = pending_requests(folder)
    assert request.problem == problem
    assert isinstance(request.kind, str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=JSON, trials=JSON, changes=JSON)
def test_any_json_is_a_request_or_none(folder: SweepFolder, kind: object, trials: object, changes: object) -> None:
    (folder.requests / "1.json").write_text(json.dumps({"kind": kind, "trials": trials, "set": changes}))
    ((_, request),) = pending_requests(folder)
    assert isinstance(request.kind, str)
    assert all(isinstance(name, str) for name in request.trials)
    assert isinstance(request.settings, dict)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40))
def test_a_request_of_any_bytes_hurts_nobody(folder: SweepFolder, content: bytes) -> None:
    (folder.requests / "1.json").write_bytes(content)
    assert len(list(pending_requests(folder))) <= 1


def test_requests_to_an_earlier_coordinator_are_discarded(folder: SweepFolder) -> None:
    (folder.requests / "1.json").write_text('{"kind": "stop"}')
    (folder.requests / "0.answer").write_text("done")
    discard_requests(folder)
    assert list(folder.requests.iterdir()) == []


def test_a_copied_sweep_may_lack_the_requests_folder(folder: SweepFolder) -> None:
    folder.requests.rmdir()
    assert list(pending_requests(folder)) == []
    discard_requests(folder)
    assert send_request(folder, {"kind": "stop"}) is None
