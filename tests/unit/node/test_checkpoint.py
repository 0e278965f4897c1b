"""Saved states: what they may hold, that they are complete, and that training continues from them bit for bit."""

from __future__ import annotations

import collections
import enum
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from omegaconf import OmegaConf

from orchestrator.node.inside import checkpoint
from orchestrator.node.inside.run import Run
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared.journal import JournalWriter
from orchestrator.node.shared.trial_paths import TrialPaths
from tests.unit.node.support import file_size_limit, order, run

ROOT = Path(__file__).parents[3]


# ---------------------------------------------------------------- with torch, in trials


def test_a_fork_equals_a_fresh_interpreter(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    logs = []
    for start in ("fork", "fork", "spawn"):
        wanted = order(tmp_path, "torch_trainers:learns", {"epochs": 2}, start=start, threads=2)
        result = run(wanted, zygote_pool if start == "fork" else ZygotePool())
        assert result.ended.failure is None, result.ended.failure
        assert result.started.method == start
        logs.append((result.log, result.rows))
    assert logs[0] == logs[1] == logs[2]
    assert logs[0][0].endswith("threads 2 True\n")


@pytest.mark.parametrize(("start", "threads"), [("fork", 2), ("spawn", 2), ("fork", 3)])
def test_a_busy_machine_takes_no_thread_away(
    tmp_path: Path, zygote_pool: ZygotePool, start: Literal["fork", "spawn"], threads: int
) -> None:
    """Otherwise sums are split differently now and then, and two runs with one seed differ in the last digits."""
    wanted = order(tmp_path, "torch_trainers:shows_threads", {}, start=start, threads=threads)
    rows = run(wanted, zygote_pool if start == "fork" else ZygotePool()).rows
    assert rows == [(0, {"threads": threads, "dynamic": 0})]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_first_call_of_a_function_is_exact(
    tmp_path: Path, zygote_pool: ZygotePool, start: Literal["fork", "spawn"]
) -> None:
    """Where threads make it at once, MKL may take a kernel of low accuracy: this failed nearly every time."""
    for _ in range(3 if start == "fork" else 1):
        wanted = order(tmp_path, "torch_trainers:calls_twice", {}, start=start, threads=2)
        assert run(wanted, zygote_pool if start == "fork" else ZygotePool()).rows == [(0, {"different": 0})]


def test_training_continues_bit_for_bit(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    whole = run(order(tmp_path / "whole", "torch_trainers:learns", {"epochs": 4}), zygote_pool)
    part = order(tmp_path / "parts", "torch_trainers:learns", {"epochs": 4, "die": 1})
    first = run(part, zygote_pool)
    assert first.ended.exit_code == 9
    last = first.saved[-1].checkpoint
    rest = order(tmp_path / "parts", "torch_trainers:learns", {"epochs": 4}, attempt=2, restore=(last,), start="fork")
    second = run(rest, zygote_pool)
    assert second.restored == [1]
    assert first.rows + second.rows == whole.rows
    assert second.log == whole.log


@pytest.mark.fault(
    "trial",
    "workers of a DataLoader",
    "a node alone: torch's own, two, that draw random numbers",
    "SUCCEEDED, the same numbers every time; no process is left",
)
def test_data_loader_workers(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    wanted = order(tmp_path, "torch_trainers:learns", {"epochs": 1, "workers": 2})
    result = run(wanted, zygote_pool)
    assert result.ended.exit_code == 0, result.log
    assert result.rows == run(wanted, zygote_pool).rows


@pytest.mark.fault(
    "trial",
    "tensors left in shared memory, torch's `file_system` strategy",
    "a node alone: the trial exits without running a handler",
    "torch's helper removes them before the attempt ends",
)
def test_shared_tensors_are_removed_with_their_trial(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "torch_trainers:shares_a_tensor"), zygote_pool)
    assert result.log.startswith("torch_")
    assert not Path("/dev/shm", result.log.strip()).exists()


def test_an_operation_without_a_deterministic_algorithm_is_reported_once(
    tmp_path: Path, zygote_pool: ZygotePool
) -> None:
    warned = run(order(tmp_path, "torch_trainers:warns"), zygote_pool)
    assert warned.notices == ["put_ has no deterministic algorithm: results may differ in the last digits"]
    assert "put_" not in warned.log
    refused = run(order(tmp_path, "torch_trainers:warns", deterministic="error"), zygote_pool).ended.failure
    assert refused is not None
    assert refused.type == "RuntimeError"
    assert "put_" in refused.message
    assert run(order(tmp_path, "torch_trainers:warns", deterministic="off"), ZygotePool()).notices == []


# ---------------------------------------------------------------- files


STATE: dict[str, Any] = {
    "numbers": [1, 2.5, True, None, 1j, float("inf")],
    "nested": {"tuple": (1, ("a", b"b")), "set": {1, 2}, 3: "int key", (1, 2): "tuple key"},
    "ordered": collections.OrderedDict(b=1, a=2),
    "array": np.arange(6, dtype="float32").reshape(2, 3),
    "scalar": np.float64(0.5),
    "empty": b"",  # torch's own reader refuses it
    "large": 1 << 3000,  # and this
}


def test_a_state_with_torch_is_read_back(tmp_path: Path) -> None:
    state = {**STATE, "tensor": torch.arange(3.0), "model": torch.nn.Linear(2, 1).state_dict()}
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    path = checkpoint.save(tmp_path / "checkpoints", state, 5, 1)
    drawn = torch.rand(2).tolist(), random.random(), np.random.rand()
    step, loaded = checkpoint.load(path)
    assert step == 5
    assert (torch.rand(2).tolist(), random.random(), np.random.rand()) == drawn
    assert torch.equal(loaded.pop("tensor"), state["tensor"])
    assert list(loaded.pop("model")) == ["weight", "bias"]
    assert same(loaded, STATE)


WITHOUT_TORCH = """
import pickle, random, sys
from pathlib import Path
from orchestrator.node.inside import checkpoint
from orchestrator.node.inside.run import Run
state = {"a": [1, (2.5, b"x")], 3: {"s"}, "nan": float("inf"), "z": 1j, (1j, b""): 1 << 3000}
path = checkpoint.save(Path(sys.argv[1]), state, 0, 1)
drawn = random.random()
assert checkpoint.load(path) == (0, state)
assert random.random() == drawn
assert "torch" not in sys.modules and "numpy" not in sys.modules
path.write_bytes(b"orchestrate state 1\\n" + pickle.dumps({"state": Path}))
try:
    checkpoint.load(path)
except pickle.UnpicklingError as error:
    print(error)
"""


def test_a_state_without_torch_executes_nothing_when_it_is_read(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, tmp_path], cwd=ROOT, text=True, capture_output=True)
    assert done.stderr == ""
    assert done.stdout.startswith("a state holds data only, not pathlib")


def with_attribute(tensor: torch.Tensor, note: Any) -> torch.Tensor:
    tensor.note = note  # type: ignore[attr-defined]
    return tensor


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ({"model": torch.nn.Linear(1, 1)}, r"state\['model'\] is a torch.nn.modules.linear.Linear"),
        ([{"f": len}], r"state\[0\]\['f'\] is a builtins.builtin_function"),
        ({"path": Path()}, r"state\['path'\] is a pathlib"),
        ({"d": collections.defaultdict(int)}, r"state\['d'\] is a collections.defaultdict"),
        ({"o": np.array([None])}, r"state\['o'\] is a numpy.ndarray"),
        ({Path(): 1}, "a key of state is a pathlib"),
        ({("a", Path()): 1}, "part of a key of state is a pathlib"),
        ([{("a", (1, np.int64(2)))}], r"part of part of an element of state\[0\] is a numpy.int64"),
        ({"m": np.ma.array([1, 2], mask=[0, 1])}, r"state\['m'\] is a numpy.ma"),
        ({"m": np.rec.array([(1,)])}, r"state\['m'\] is a numpy"),
        ({"e": signal.SIGTERM}, r"state\['e'\] is a signal.Signals"),
        ({"t": time.gmtime(0)}, r"state\['t'\] is a time.struct_time"),
        ({"t": with_attribute(torch.zeros(1), Path())}, r"state\['t'\].__dict__\['note'\] is a pathlib"),
        ({"c": OmegaConf.create({"a": 1})}, r"state\['c'\] is a omegaconf"),
        ({"\0array": 1}, "a key of state is a reserved string"),
    ],
)
def test_a_state_that_could_not_be_read_back_is_refused(tmp_path: Path, state: Any, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        checkpoint.save(tmp_path, state, 0, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_contains_itself_is_refused(tmp_path: Path) -> None:
    state: list[Any] = []
    state.append(state)
    with pytest.raises(ValueError, match="the state contains itself"):
        checkpoint.save(tmp_path, state, 0, 1)


class Kind(enum.IntEnum):
    ONE = 1


class Name(str):
    pass


HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**2000, 2**2100)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.binary(),
    lambda inner: st.lists(inner, max_size=2).map(tuple),
    max_leaves=3,
)
ARRAYS = numpy_strategies.arrays(
    numpy_strategies.scalar_dtypes() | numpy_strategies.array_dtypes(), numpy_strategies.array_shapes(max_side=2)
)
REFUSED = st.sampled_from([Path("x"), Kind.ONE, Name("x"), collections.defaultdict(int), bytearray(b"x"), object()])


def states(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(HASHABLE, inner, max_size=3)
            | st.dictionaries(HASHABLE, inner, max_size=3).map(collections.OrderedDict)
        ),
        max_leaves=6,
    )


LEAVES = (
    HASHABLE
    | st.sets(HASHABLE, max_size=3)
    | ARRAYS
    | ARRAYS.map(lambda array: array.flat[0])
    | ARRAYS.map(lambda array: np.asarray(array, order="F"))
)


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, and of the same types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (np.ndarray, np.generic)):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    return repr(one) == repr(other)


ONE_FOLDER = settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@ONE_FOLDER
@given(state=states(LEAVES))
def test_whatever_is_saved_comes_back(tmp_path: Path, state: Any) -> None:
    assert same(checkpoint.load(checkpoint.save(tmp_path, state, 0, 1))[1], state)


@ONE_FOLDER
@given(state=states(REFUSED | st.tuples(REFUSED)), beside=LEAVES)
def test_what_would_not_come_back_is_refused(tmp_path: Path, state: Any, beside: Any) -> None:
    both = [beside, state]
    try:
        path = checkpoint.save(tmp_path, both, 0, 1)
    except TypeError as error:
        told = str(error)
    else:
        told = "state[1] came back" if same(checkpoint.load(path)[1], both) else "it was changed"
    assert told.startswith("state[1]")


def test_a_state_of_version_0_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "1-step-3.state"
    array = {"\0array": checkpoint._to_portable(np.arange(3), "state")["\0array"], "scalar": False}
    torch.save({"step": 3, "state": {"a": array, "z": [1j]}, "generators": checkpoint._generators()}, path)
    step, state = checkpoint.load(path)
    assert (step, state["a"].tolist(), state["z"]) == (3, [0, 1, 2], [1j])


def test_a_folder_is_restored_as_it_was(tmp_path: Path) -> None:
    source, kept = tmp_path / "source", tmp_path / "kept"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "weights").write_bytes(bytes(range(256)) * 1000)
    (source / "sub" / "tool").write_text("#!/bin/sh")
    (source / "sub" / "tool").chmod(0o755)
    random.seed(3)
    path = checkpoint.save(kept, source, 4, 1)
    drawn = random.random()
    step, found = checkpoint.load(path)
    assert (step, random.random()) == (4, drawn)
    names = ["sub", "sub/empty", "sub/tool", "weights"]
    assert sorted(str(item.relative_to(found)) for item in found.rglob("*")) == names
    assert (found / "weights").read_bytes() == (source / "weights").read_bytes()
    assert os.access(found / "sub" / "tool", os.X_OK)
    checkpoint.discard_drafts(kept)
    assert list(kept.iterdir()) == [path]


def test_a_folder_with_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / os.fsdecode(b"caf\xe9.bin")).touch()
    with pytest.raises(ValueError, match=r"caf\\udce9.bin: the name is no valid Unicode"):
        checkpoint.save(tmp_path / "kept", tmp_path / "source", 4, 1)
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(b"w" * 5000)
    path = checkpoint.save(tmp_path / "kept", tmp_path / "source", 4, 1)
    data = path.read_bytes()
    middle = data.index(b"w" * 5000) + 2000
    path.write_bytes(data[:middle] if damage == "cut" else data[:middle] + b"v" + data[middle + 1 :])
    with pytest.raises(zipfile.BadZipFile):
        checkpoint.load(path)


def test_a_path_that_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="takes a state or a folder"):
        checkpoint.save(tmp_path / "kept", tmp_path / "none", 0, 1)


def test_a_failed_write_leaves_the_old_state(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, {"a": 1}, 0, 1)
    with file_size_limit(50_000), pytest.raises((OSError, RuntimeError)):  # torch raises the latter
        checkpoint.save(tmp_path, {"a": bytes(100_000)}, 0, 1)
    assert list(tmp_path.iterdir()) == [path]
    assert checkpoint.load(path) == (0, {"a": 1})


def test_the_newest_two_are_kept_by_attempt_and_step(tmp_path: Path) -> None:
    names = ((1, 9), (1, 100), (2, 5), (2, 10))
    *older, last = [checkpoint.save(tmp_path, {}, step, attempt) for attempt, step in names]
    checkpoint.prune(tmp_path, last)
    assert len(list(tmp_path.iterdir())) == 4, "the coordinator may not know of the newest yet"
    for path in (*older, last):
        os.utime(path, (1e9, 1e9))  # by the clock of a file server that is years behind
    checkpoint.prune(tmp_path, last)
    assert len(list(tmp_path.iterdir())) == 4
    os.utime(last, (1e9 + 11, 1e9 + 11))
    checkpoint.prune(tmp_path, last)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-step-10.state", "2-step-5.state"]


def test_no_state_is_deleted_early_after_the_clock_was_set_back(tmp_path: Path) -> None:
    ahead = [checkpoint.save(tmp_path, {}, step, 1) for step in range(3)]
    for path in ahead:
        os.utime(path, (2**32, 2**32))
    written = [checkpoint.save(tmp_path, {}, step, 1) for step in range(3, 7)]
    checkpoint.prune(tmp_path, written[-1])
    assert set(tmp_path.iterdir()) == {*ahead, *written}


def test_no_folder_is_made_where_the_sweep_was(tmp_path: Path) -> None:
    """The user has moved or deleted it: moving it back must find nothing in its place."""
    paths = TrialPaths(str(tmp_path / "runs" / "s" / "trials" / "a"), shared=True)
    journal = os.open(tmp_path / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    run_of_trial = Run(order(tmp_path, "train:train"), JournalWriter(journal), paths)
    with pytest.raises(FileNotFoundError, match="the sweep's folder was deleted or moved"):
        run_of_trial.save({"a": 1}, step=0)
    with pytest.raises(FileNotFoundError, match="the sweep's folder was deleted or moved"):
        assert run_of_trial.dir
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "s").mkdir(parents=True)
    assert run_of_trial.dir.is_dir()
    os.close(journal)
