"""What a trial sees, and what it can report."""

from __future__ import annotations

import bdb
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from orchestrator.decide.lifecycle import classify
from orchestrator.language.literal import escape
from orchestrator.model.sweep import State
from orchestrator.node.inside import failure
from orchestrator.node.launch import zygote_pool as zygote_pool_module
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.support import HERE, file, order, run

ROOT = Path(__file__).parents[3]


def test_what_a_trial_sees_beside_the_users_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """README.md names these; what we and Ray set for our own processes is not among them."""
    for name in ("RAY_AUTH_TOKEN", "RAY_JOB_ID", "__RAY_ANY", "RAYLET_PID", "ORCHESTRATE_ZYGOTE"):
        monkeypatch.setenv(name, "ours")
    monkeypatch.setenv("ORCHESTRATE_RUNS", "the user's")
    seen = zygote_pool_module.environment(["3"])
    assert seen["ORCHESTRATE_RUNS"] == "the user's"
    assert "ours" not in seen.values()
    assert {name for name, value in seen.items() if os.environ.get(name) != value} <= {
        "CUDA_VISIBLE_DEVICES",
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
        *("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_NVML_BASED_CUDA_CHECK"),
    }


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_variables_of_the_sweep_are_there_from_the_import_on(
    tmp_path: Path, zygote_pool: ZygotePool, start: Literal["fork", "spawn"]
) -> None:
    """They come with the order: on another node, they are not in the environment of the worker."""
    (tmp_path / "needs.py").write_text("import os\nHOME = os.environ['SWEEP_HOME']\ndef train(cfg): print(HOME)\n")
    wanted = order(tmp_path, "needs:train", import_path=(str(tmp_path),), cwd=str(tmp_path), start=start)
    for home in ("/a", "/b"):
        assert run(replace(wanted, env=(("SWEEP_HOME", home),)), zygote_pool).log == f"{home}\n"
    assert "SWEEP_HOME" not in os.environ


def test_a_trials_environment(tmp_path: Path, zygote_pool: ZygotePool, monkeypatch: pytest.MonkeyPatch) -> None:
    zygote_pool.close()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    wanted = order(tmp_path, "facts", threads=3)
    assert run(wanted, zygote_pool).ended.exit_code == 0
    seen = file(wanted, "facts.json")
    assert seen["cwd"] == HERE == seen["path"]
    assert seen["stdin"] == ""
    assert seen["threads"] == "3"
    assert seen["gpus"] == ""
    assert seen["ray"] == seen["blocked"] == seen["sockets"] == []
    assert seen["session"]
    assert seen["sigint"]
    assert seen["seed"] == 7


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize(("unbuffered", "log"), [("", "a line\n"), ("1", "a line\nwithout an end")])
def test_output_is_passed_on_at_once_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Literal["fork", "spawn"], unbuffered: str, log: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    text = "import os\ndef train(cfg):\n    print('a line')\n    print('without', end=' an end')\n    os._exit(1)\n"
    (tmp_path / "prints.py").write_text(text)
    wanted = order(tmp_path, "prints:train", import_path=(str(tmp_path),), cwd=str(tmp_path), start=start)
    pool = ZygotePool()
    assert run(wanted, pool).log == log
    pool.close()


def test_a_fork_and_a_fresh_interpreter_draw_the_same_numbers(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    wanted = order(tmp_path, "facts")
    spawned = order(tmp_path, "facts", start="spawn")
    seen = []
    for each in (wanted, spawned, wanted):
        result = run(each, zygote_pool)
        assert result.started.method == each.start
        seen.append(file(each, "facts.json"))
    assert seen[0] == seen[1] == seen[2]
    run(order(tmp_path, "facts", seed=8), zygote_pool)
    other = file(wanted, "facts.json")
    assert other["random"] != seen[0]["random"]
    assert other["numpy"] != seen[0]["numpy"]


def test_trials_of_one_zygote_see_different_gpus(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    seen, parents = [], set()
    for gpus in (("0",), ("3",), ("GPU-5a",)):
        wanted = order(tmp_path, "facts", gpus=1.0)
        assert run(wanted, zygote_pool, gpus=gpus).started.gpus == gpus
        seen.append(file(wanted, "facts.json")["gpus"])
        parents.add(id(zygote_pool.zygote(wanted, gpus)))
    assert seen == ["0", "3", "GPU-5a"]
    assert len(parents) == 1


def test_the_copy_of_the_code_is_the_cwd_if_the_project_is_missing(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    wanted = order(tmp_path, "facts", cwd="/not/on/this/node")
    run(wanted, zygote_pool)
    assert file(wanted, "facts.json")["cwd"] == HERE


def test_reports_keep_numbers_and_warn_of_the_rest(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "reports"), zygote_pool)
    assert result.ended.exit_code == 0
    assert result.rows == [
        (0, {"loss": 0.5, "n": 3, "flag": 1}),
        (1, {"loss": "NaN", "up": "Infinity", "down": "-Infinity"}),
        (10, {"f32": 0.5, "array": 2.0, "i": 7, "nan": "NaN"}),
        (11, {"valid/loss": 1.0, "valid/top/k": 2}),
        (12, {"ok": 1.5}),
        (13, {"ok": 2.5}),
        (15, {"big": 2.0**70}),
        (16, {"last": 1.0}),
        (20, {"step": 20.0}),
        (21, {"step": 21.0}),
    ]
    about = (
        *(
            "'name'",
            "'vector'",
            "'two'",
            "'text'",
            "step='three'",
            "too many",
            "None is not a mapping of names to numbers",
            "'huge'",
        ),
        "1 row was lost: its step was not a whole number",
        "1 row was lost: a row has at most 65536 characters as JSON",
        "1 row was lost: it was not a mapping of names to numbers",
    )
    assert len(result.notices) == len(about)
    for word, notice in zip(about, result.notices, strict=True):
        assert word in notice


@pytest.mark.parametrize(
    ("trainer", "rows"),
    [
        ("returns_number", [(0, {"objective": 0.25})]),
        ("returns_mapping", [(4, {"a": 1.0}), (5, {"b": 2.0})]),
        ("one_parameter", []),
        ("run_by_name", []),
    ],
)
def test_signatures_and_returned_values(tmp_path: Path, zygote_pool: ZygotePool, trainer: str, rows: object) -> None:
    result = run(order(tmp_path, trainer), zygote_pool)
    assert result.ended.failure is None
    assert result.rows == rows
    assert result.ended.entered is not None
    assert result.ended.left is not None


def test_what_is_returned_and_cannot_be_recorded_is_told(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "returns_a_pair"), zygote_pool)
    assert result.rows == []
    (notice,) = result.notices
    assert notice.startswith("`train` returned ({'a': 1.0}, 'model'), which is not recorded: return a number")


def test_a_generator_that_only_the_call_gives_is_no_success(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    failure = run(order(tmp_path, "returns_a_generator"), zygote_pool).ended.failure
    assert failure is not None
    assert "returned a generator, so nothing of it has run" in failure.message


def test_the_name_of_a_folder_is_saved_as_text_and_said_so(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "saves_a_name"), zygote_pool)
    assert result.ended.exit_code == 0
    assert result.notices == ["run.save('model') has saved this text; run.save(Path('model')) saves the folder"]


def test_an_exception_is_reported_without_internal_frames(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "raises"), zygote_pool)
    failure = result.ended.failure
    assert failure is not None
    assert result.ended.exit_code == 1
    assert (failure.type, failure.message) == ("ValueError", "no learning rate")
    assert failure.where.startswith("node_trainers.py:")
    assert "orchestrator" not in failure.traceback
    assert failure.traceback.count("Traceback (most recent call last)") == 2
    assert "KeyError: 'lr'" in failure.traceback
    assert "_deep({})" in failure.traceback
    assert failure.traceback in result.log


def test_a_long_message_hides_neither_its_cause_nor_the_frames(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    ended = run(order(tmp_path, "raises_at_length", {"size": 2_000_000}), zygote_pool).ended
    assert ended.failure is not None
    failure = ended.failure
    assert (failure.message[:5], failure.message[-5:]) == ("begin", "end..")
    assert len(failure.message) + len(failure.traceback) < 30_000
    assert failure.traceback.count("Traceback (most recent call last)") == 2
    assert failure.traceback.count("in raises_at_length") == 2
    assert failure.traceback.endswith("end..\n")
    assert failure.where.startswith("node_trainers.py:")
    assert classify(ended).message.startswith("ValueError: begin")


def test_a_long_name_of_a_metric_does_not_lose_the_warning(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    (notice,) = run(order(tmp_path, "misnames", {"size": 2_000_000}), zygote_pool).notices
    assert notice.endswith("'adam' is not a number")
    assert len(notice) < 3_000


@pytest.mark.fault(
    "disk",
    "rows that cannot be written",
    "a node alone: no file may grow while the trial reports 12 rows",
    "FAILED, cause rows_lost; how many were lost and why is told",
)
def test_rows_that_the_node_cannot_take_down_fail_the_attempt(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "loses_rows", {"rows": 12}), zygote_pool)
    outcome = classify(result.ended)
    assert (outcome.state, outcome.cause) == (State.FAILED, "rows_lost")
    assert outcome.message == f"12 rows were lost on {socket.gethostname()}: File too large"
    assert result.notices == [outcome.message]
    assert [step for step, _ in result.rows] == [0, 13]


@pytest.mark.fault(
    "disk",
    "no temporary folder that takes a byte",
    "a node alone: TMPDIR is read-only",
    "every row arrives: what a trial reports lies in memory until it is read",
)
def test_a_full_temporary_folder_loses_no_row(
    tmp_path: Path, zygote_pool: ZygotePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/self")
    result = run(order(tmp_path, "reports"), zygote_pool)
    assert classify(result.ended).state is State.SUCCEEDED
    assert len(result.rows) == 10


def test_a_chain_of_exceptions_longer_than_calls_can_be_nested_is_described() -> None:
    error: BaseException = ValueError("the first")
    for number in range(5_000):
        last = ValueError(number)
        last.__cause__, error = error, last
    described = failure.describe(error, ())
    assert described.message == "4999"
    assert described.traceback.startswith("ValueError: the first")
    assert described.traceback.endswith("ValueError: 4999\n")


def test_of_a_very_deep_recursion_the_last_frames_are_described() -> None:
    def recurse(depth: int) -> None:
        if depth == 0:
            raise ValueError("deep")
        recurse(depth - 1)

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    try:
        recurse(20_000)
    except ValueError as error:
        described = failure.describe(error, (HERE,))
    finally:
        sys.setrecursionlimit(before)
    assert described.where.startswith("test_trial.py:")
    assert 0 < int(re.findall(r"repeated (\d+) more times", described.traceback)[0]) < 1_000
    assert described.traceback.endswith("ValueError: deep\n")


def test_code_made_from_a_text_is_no_file_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name, such as `<string>`, would be taken for that of a file in the working directory."""
    monkeypatch.chdir(HERE)
    for text in ("1 / 0", "a b"):
        with pytest.raises((ZeroDivisionError, SyntaxError)) as raised:
            exec(text)
        assert failure.describe(raised.value, (HERE,)).where.startswith("test_trial.py:")


def test_a_breakpoint_needs_a_terminal() -> None:
    described = failure.describe(bdb.BdbQuit(), ())
    assert "orchestrate try" in described.message


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [("0", 0, None), ("None", 0, None), ("3", 3, None), ("'bad data'", 1, "bad data")],
)
def test_sys_exit_gives_its_exit_code(
    tmp_path: Path, zygote_pool: ZygotePool, code: str, exit_code: int, message: str | None
) -> None:
    ended = run(order(tmp_path, "leaves", {"code": code}), zygote_pool).ended
    assert ended.exit_code == exit_code
    assert (ended.failure and ended.failure.message) == message


def test_hydra_main_is_unwrapped(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    (tmp_path / "hydra_app.py").write_text(
        "import hydra, logging\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "@hydra.main(version_base=None, config_path=None)\n"
        "def main(cfg):\n"
        "    logging.info(HydraConfig.get().runtime.output_dir)\n"
        "    return cfg.lr\n"
    )
    wanted = order(tmp_path, "hydra_app:main", {"lr": 0.5}, import_path=(str(tmp_path),))
    result = run(wanted, zygote_pool)
    assert result.rows == [(0, {"objective": 0.5})]
    assert result.log.endswith(f"[root][INFO] - {wanted.folder}/files\n")


def test_the_config_is_private_and_writable_but_takes_no_new_keys(
    tmp_path: Path, zygote_pool: ZygotePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    zygote_pool.close()
    monkeypatch.setenv("TOKEN_OF_MINE", "a${b}")
    data = {"lr": 1, "text": "${not.ours}", "list": ["$", r"\${x}", None], "deep": {"key": "here"}, "7": 1.5}
    references = {"deep.key": "${oc.env:TOKEN_OF_MINE}", "out": "${hydra:runtime.output_dir}/x", "year": "${now:%Y}"}
    wanted = order(tmp_path, "config", data, references=references)
    assert run(wanted, zygote_pool).ended.failure is None
    seen = file(wanted, "config.json")
    year = seen["cfg"].pop("year")
    out = f"{wanted.folder}/files/x"
    assert seen["cfg"] == {**data, "lr": 2, "deep": {"key": "a${b}"}, "out": out}
    assert year.isdigit()
    assert seen["struct"] == "ConfigAttributeError"


def test_a_reference_that_does_not_resolve_is_named_with_its_key(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    wanted = order(tmp_path, "nothing", {"a": None}, references={"a": "${oc.env:NOT_SET_ANYWHERE}"})
    failure = run(wanted, zygote_pool).ended.failure
    assert failure is not None
    assert failure.message.startswith("a: ${oc.env:NOT_SET_ANYWHERE} does not resolve")


texts = st.text(alphabet="a$\\{}:.'\" ", max_size=12)


@given(texts)
def test_any_text_reads_back_as_itself(text: str) -> None:
    assert OmegaConf.create(escape({"key": text})).key == text


def test_a_library_that_the_trainer_imports_late_is_deterministic(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    (tmp_path / "late.py").write_text(
        "def train(cfg, run):\n"
        "    import torch\n"
        "    run.report({'draw': torch.rand(()), 'on': torch.are_deterministic_algorithms_enabled(),\n"
        "                'threads': torch.get_num_threads()})\n"
    )
    wanted = order(tmp_path, "late:train", import_path=(str(tmp_path),), threads=2, seed=5)
    import torch

    generator = torch.Generator().manual_seed(5)
    assert run(wanted, zygote_pool).rows == [
        (0, {"draw": torch.rand((), generator=generator).item(), "on": 1, "threads": 2})
    ]


INLINE = """
import sys
from pathlib import Path
from tests.unit.node.support import order
from orchestrator.node.inside.inline import run_inline
hooked = lambda kind, error, trace: print("hooked", kind.__name__, trace.tb_frame.f_code.co_name)
for name in ("returns_mapping", "raises", "raises"):
    ended = run_inline(order(Path(sys.argv[1]), name), lambda line: print("echo", line))
    print(ended.exit_code, ended.failure and ended.failure.type)
    sys.excepthook = hooked if ended.failure else sys.excepthook
ended = run_inline(order(Path(sys.argv[1]), "node_trainers:asks"), print)
"""


def test_an_inline_trial_has_the_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INLINE, tmp_path], cwd=ROOT, input="typed\n", text=True, capture_output=True
    )
    assert done.stderr.count("Traceback") == 2, "an error with its cause, shown once"
    assert done.stdout.splitlines() == [
        'echo step 4: {"a":1.0}',
        'echo step 5: {"b":2.0}',
        "0 None",
        "1 ValueError",
        "hooked ValueError raises",
        "1 ValueError",
        "got typed",
    ]
