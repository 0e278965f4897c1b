"""Attempts from start to end: exits, signals, logs, stopping, and files of a node that does not see the sweep."""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.decide.lifecycle import classify
from orchestrator.model.events import Batch, Ended, Filed, Logged, Noticed, Outcome, Started
from orchestrator.model.order import Checkpoint, Order
from orchestrator.model.sweep import State
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared import trial_paths
from orchestrator.node.shared.journal import JournalWriter, Left
from orchestrator.node.watch import file_transfer
from orchestrator.node.watch.event_collector import LONG_END, EventCollector
from orchestrator.node.watch.limits import AttemptLimits
from orchestrator.node.watch.output import Output
from orchestrator.text import VisibleLines
from tests.unit.node.support import HERE, Result, alive, order, run, stream


def test_a_short_trial_is_one_batch(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    run(order(tmp_path, "nothing"), zygote_pool)  # imports
    result = run(order(tmp_path, "nothing", interval=60.0), zygote_pool)
    started = result.started
    assert started.node == "here"
    assert started.method == "fork"
    assert started.threads == 1
    assert isinstance(result.events[0], Started)
    assert isinstance(result.events[-1], Ended)
    assert len(result.batches) <= 2  # one, unless the machine is slow


def test_the_time_between_batches_follows_how_many_are_live(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    """An attempt that began alone sends less often once there are many others."""
    given: list[float] = []

    def interval() -> float:
        given.append(0.01 if len(given) < 5 else 600.0)
        return given[-1]

    def asked() -> str | None:
        return "cancelled" if 600.0 in given else None

    result = run(order(tmp_path, "waits"), zygote_pool, asked=asked, interval=interval)
    assert result.ended.asked == "cancelled"
    assert given == [0.01] * 5 + [600.0]


def test_hard_exit(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    ended = run(order(tmp_path, "leaves_hard"), zygote_pool).ended
    assert (ended.exit_code, ended.signal, ended.failure) == (3, None, None)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_signals(tmp_path: Path, zygote_pool: ZygotePool, number: int) -> None:
    result = run(order(tmp_path, "crashes", {"signal": int(number)}), zygote_pool)
    assert (result.ended.exit_code, result.ended.signal) == (None, number)
    if number == signal.SIGSEGV:  # faulthandler has written where
        assert "node_trainers.py" in result.log
    if number == signal.SIGKILL:
        assert "peak memory" in result.ended.detail


def test_log_keeps_order_across_streams_and_children(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    assert run(order(tmp_path, "prints", {"lines": 200}), zygote_pool).log == "".join(f"line {i}\n" for i in range(200))
    assert run(order(tmp_path, "shell"), zygote_pool).log.splitlines() == [
        "from python", "from a child", "and its error", "python again"
    ]  # fmt: skip


def test_log_cap(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    """Both ends are kept: an error is told at the end."""
    result = run(order(tmp_path, "prints", {"lines": 100_000}, log_cap=1000), zygote_pool)
    assert result.ended.exit_code == 0
    log = result.log.splitlines()
    assert log[:60] == [f"line {number}" for number in range(60)]
    follows, gap = (at for at, line in enumerate(log) if line.startswith("[orchestrate: "))
    assert log[follows] == "[orchestrate: of what follows, the last 500 bytes come when the attempt ends]"
    assert log[gap + 1 :] == [f"line {number}" for number in range(100_000)][gap + 1 - len(log) :]
    assert 480 <= len("\n".join(log[gap + 1 :])) <= 500
    whole = sum(len(f"line {number}\n") for number in range(100_000))
    kept = sum(len(line) + 1 for line in log if not line.startswith("["))
    # One of the lines before the gap may be cut; the newline after it is ours.
    assert log[gap] in [f"[orchestrate: {whole - kept + ours} bytes of output are left out here]" for ours in (0, 1)]


def test_a_progress_bar_does_not_fill_the_log(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "shows_progress", {"updates": 100_000}, interval=60.0), zygote_pool)
    lines = VisibleLines()
    assert (lines.add(result.log.encode()) + lines.rest()).decode() == "begin\n100%|####|\nValueError: at the end\n"
    assert len(result.log) < 5_000  # with a state every ten seconds


def test_large_logs_come_in_pieces(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "prints", {"lines": 300_000}, interval=60.0), zygote_pool)
    pieces = [len(event.data) for event in result.events if isinstance(event, Logged)]
    assert sum(pieces) == sum(len(f"line {i}\n") for i in range(300_000))
    assert max(pieces) <= 2**20 + 2**17
    assert len(pieces) > 2


def run_until_it_prints(wanted: Order, zygote_pool: ZygotePool, why: str) -> Result:
    """Ask the attempt to end once its first output has arrived."""
    batches: list[Batch] = []
    printed: list[bool] = []

    def asked() -> str | None:
        return why if printed else None

    for batch in stream(wanted, zygote_pool, asked=asked):
        batches.append(batch)
        printed += [True for event in batch.events if isinstance(event, Logged)]
    return Result(batches)


def test_a_stopped_trial_has_time_to_save(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run_until_it_prints(order(tmp_path, "waits"), zygote_pool, "cancelled")
    assert result.ended.asked == "cancelled"
    assert result.ended.exit_code == 128 + signal.SIGTERM
    assert result.ended.failure is None
    assert result.rows[-1][1] == {"saved": 1.0}
    assert result.log.endswith("cleaned up\n")


def test_a_stopped_trial_is_killed_after_the_grace_time(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    ended = run_until_it_prints(order(tmp_path, "ignores", grace=0.1), zygote_pool, "stopped").ended
    assert (ended.asked, ended.signal) == ("stopped", signal.SIGKILL)


@pytest.mark.fault(
    "trial",
    "it is asked to end just after it has returned",
    "a node alone: by Ctrl-C, a worker's SIGTERM or a timeout, while an exit handler runs on, through SIGTERM or not",
    "SUCCEEDED, with all its rows",
)
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("why", ["cancelled", "terminated", "timeout"])
def test_a_trial_that_had_returned_has_succeeded(
    tmp_path: Path, zygote_pool: ZygotePool, why: str, stubborn: bool
) -> None:
    """Whatever asks it to end while it cleans up, and whether the clean-up ends at SIGTERM or SIGKILL."""
    limits = {"timeout": 1.0} if why == "timeout" else {}
    wanted = order(tmp_path, "returns_and_lingers", {"stubborn": stubborn}, grace=0.1, **limits)
    run(order(tmp_path, "nothing"), zygote_pool)  # warm
    result = run(wanted, zygote_pool) if limits else run_until_it_prints(wanted, zygote_pool, why)
    assert (result.ended.asked, result.ended.asked_late, result.ended.left_code) == (why, True, 0)
    assert classify(result.ended) == Outcome(State.SUCCEEDED)
    assert result.rows == [(0, {"objective": 0.25})]
    assert [notice.startswith("`train` had returned") for notice in result.notices] == ([True] if limits else [])


def test_a_trial_that_had_raised_has_failed(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    wanted = order(tmp_path, "returns_and_lingers", {"stubborn": False, "raises": True})
    outcome = classify(run_until_it_prints(wanted, zygote_pool, "cancelled").ended)
    assert (outcome.state, outcome.message) == (State.FAILED, "KeyError: 'lr'")


@pytest.mark.fault(
    "trial",
    "it catches SIGTERM, saves and returns",
    "a node alone: it returns, or calls `sys.exit(0)`",
    "CANCELLED: it goes on from what it saved",
)
@pytest.mark.parametrize("exits", [False, True])
def test_a_trial_that_saves_when_it_is_asked_to_end_has_not_succeeded(
    tmp_path: Path, zygote_pool: ZygotePool, exits: bool
) -> None:
    result = run_until_it_prints(order(tmp_path, "saves_when_asked", {"exits": exits}), zygote_pool, "cancelled")
    assert (result.ended.exit_code, result.rows) == (0, [(0, {"saved": 1.0})])
    assert classify(result.ended).state is State.CANCELLED


@pytest.mark.parametrize("raises", [False, True])
def test_a_forked_child_does_not_speak_for_the_trial(tmp_path: Path, zygote_pool: ZygotePool, raises: bool) -> None:
    child = {"raises": raises}
    wanted = order(tmp_path, "forks_a_child_that_returns", {**child, "wait": True})
    assert classify(run_until_it_prints(wanted, zygote_pool, "cancelled").ended).state is State.CANCELLED
    alone = run(order(tmp_path, "forks_a_child_that_returns", {**child, "wait": False}), zygote_pool).ended
    assert classify(alone) == Outcome(State.SUCCEEDED)


def test_an_exit_before_the_trainer_returns_is_no_success(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    outcome = classify(run(order(tmp_path, "exits_without_a_word"), zygote_pool).ended)
    assert (outcome.state, outcome.cause) == (State.FAILED, "exit")
    assert "before `train` returned" in outcome.message


@pytest.mark.parametrize("code", [256, -256])
def test_an_exit_code_that_a_process_cannot_have_is_no_success(
    tmp_path: Path, zygote_pool: ZygotePool, code: int
) -> None:
    """Of it, the kernel keeps eight bits: 0."""
    outcome = classify(run(order(tmp_path, "exits", {"code": code}), zygote_pool).ended)
    assert (outcome.state, outcome.message) == (State.FAILED, f"the process ended with exit code {code}")


def test_an_exception_that_cannot_be_shown_is_named(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    outcome = classify(run(order(tmp_path, "raises_what_cannot_be_shown"), zygote_pool).ended)
    assert outcome.message == "node_trainers.Odd: b"
    assert outcome.place.startswith("node_trainers.py:")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_a_trainer_starts_can_report(tmp_path: Path, zygote_pool: ZygotePool, method: str) -> None:
    """With `spawn`, a number of a descriptor means another file there, or none: rows were lost, or spoiled a file."""
    result = run(order(tmp_path, "spawns_reporters", {"method": method}), zygote_pool)
    assert classify(result.ended) == Outcome(State.SUCCEEDED)
    assert len(result.rows) == 21


def test_a_stop_ends_an_import(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n")
    wanted = order(tmp_path, "hangs:train", import_path=(str(tmp_path),))
    looks = iter((None, None, "cancelled"))
    result = run(wanted, ZygotePool(), asked=lambda: next(looks))
    assert [type(event) for event in result.events] == [Ended]
    assert result.ended.asked == "cancelled"


@pytest.mark.parametrize(("limit", "why"), [("timeout", "timeout"), ("heartbeat", "hang")])
def test_a_trial_that_exceeds_a_limit_is_stopped(tmp_path: Path, zygote_pool: ZygotePool, limit: str, why: str) -> None:
    run(order(tmp_path, "nothing"), zygote_pool)  # warm
    result = run(order(tmp_path, "waits", **{limit: 2.0}), zygote_pool)
    assert result.ended.asked == why
    assert f"2s, which is sweep.{limit}" in result.ended.detail
    assert result.ended.exit_code == 128 + signal.SIGTERM
    assert result.rows[-1][1] == {"saved": 1.0}
    assert_stack_ends_at(result.ended, "time.sleep(600)")


def assert_stack_ends_at(ended: Ended, source: str) -> None:
    """The stack ends at this line of the trainer and has no internal frames."""
    assert ended.stack.startswith("Stack (most recent call last):\n")
    assert ended.stack.rstrip().endswith(source)
    assert "orchestrator" not in ended.stack
    file, _, line = ended.place.partition(":")
    assert file == "node_trainers.py"
    assert (Path(HERE) / file).read_text().splitlines()[int(line) - 1].strip() == source


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_hang_in_a_library_is_reported_with_its_line(tmp_path: Path, start: str) -> None:
    zygote_pool = ZygotePool()
    ended = run(order(tmp_path, "hangs_in_c", heartbeat=4.0, grace=0.1, start=start), zygote_pool).ended
    zygote_pool.close()
    assert (ended.asked, ended.signal) == ("hang", signal.SIGKILL)
    assert_stack_ends_at(ended, "sum(itertools.repeat(1))")


def test_a_trial_without_the_stack_handler_is_stopped_without_a_stack(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    ended = run(order(tmp_path, "removes_the_stack_handler", heartbeat=1.0), zygote_pool).ended
    assert (ended.asked, ended.exit_code, ended.stack) == ("hang", 128 + signal.SIGTERM, "")


def test_a_trial_that_ignores_its_limit_is_killed(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    ended = run(order(tmp_path, "ignores", timeout=0.5, grace=0.1), zygote_pool).ended
    assert (ended.asked, ended.signal) == ("timeout", signal.SIGKILL)
    assert "sweep.timeout" in ended.detail


def test_an_import_that_hangs_times_out(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n")
    wanted = order(tmp_path, "hangs:train", import_path=(str(tmp_path),), timeout=0.2)
    ended = run(wanted, ZygotePool()).ended
    assert ended.asked == "timeout"
    assert ended.detail.endswith("while the trainer's module was imported")


def test_a_report_is_a_sign_of_life(tmp_path: Path) -> None:
    with open(tmp_path / "journal", "wb", buffering=0) as journal:
        limits = AttemptLimits(order(tmp_path, "waits", timeout=100.0, heartbeat=10.0), journal.fileno())
        limits.begin(0.0)
        assert limits.exceeded(9.0) is None
        journal.write(b"x")
        assert limits.exceeded(9.5) is None
        assert limits.exceeded(19.0) is None
        hang = limits.exceeded(19.5)
        assert hang == ("hang", "no report for 10s, which is sweep.heartbeat, after 20s in all")
        journal.write(b"x")
        assert limits.exceeded(20.0) is None
        limits.begin(50.0)  # both clocks start again
        assert limits.exceeded(59.0) is None
        assert limits.exceeded(150.0) == ("timeout", "ran for 1m 40s, which is sweep.timeout")


def test_closing_the_generator_ends_the_trial(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    batches = stream(order(tmp_path, "waits"), zygote_pool)
    started = next(batches).events[0]
    assert isinstance(started, Started)
    assert alive(started.pid)
    batches.close()  # type: ignore[attr-defined]
    assert not alive(started.pid)
    assert run(order(tmp_path, "nothing"), zygote_pool).ended.exit_code == 0  # and the next one runs


def test_a_trial_waits_for_threads_and_runs_exit_handlers(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    result = run(order(tmp_path, "waits_for_threads", {"x": 1}), zygote_pool)
    assert result.log == "thread\nexit handler\n"


def test_a_process_that_goes_on_after_train_is_told_of_once(tmp_path: Path) -> None:
    wanted = order(tmp_path, "nothing")
    with tempfile.TemporaryFile("a+b") as journal:
        output = Output(wanted.log_cap)
        collector = EventCollector(wanted, trial_paths.paths_of(wanted), journal.fileno(), output)
        JournalWriter(journal.fileno()).left(Left(time.time(), time.monotonic() - LONG_END - 1, 0))
        (noticed,) = [*collector.new(), *collector.new()]
        output.close()
    assert isinstance(noticed, Noticed)
    assert "60 s ago" in noticed.text


def test_what_an_object_raises_at_the_end_is_told_with_its_line(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    text = "class Odd:\n    def __del__(self):\n        raise KeyError('odd')\nKEPT = []\n"
    (tmp_path / "ends_oddly.py").write_text(text + "def train(cfg):\n    KEPT.append(Odd())\n")
    result = run(order(tmp_path, "ends_oddly:train", import_path=(str(tmp_path),)), zygote_pool)
    ignored, *trace = result.log.splitlines()
    assert ignored.startswith("Exception ignored in: <function Odd.__del__")
    assert trace == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/ends_oddly.py", line 3, in __del__',
        "    raise KeyError('odd')",
        "KeyError: 'odd'",
    ]


def test_a_connection_that_another_thread_closes_is_not_called_unfinished(
    tmp_path: Path, zygote_pool: ZygotePool
) -> None:
    """A queue's thread closes the pipe, and then forgets its number: here it is between the two."""
    text = "import multiprocessing, os\nENDS = []\ndef train(cfg):\n    ENDS.extend(multiprocessing.Pipe())\n"
    (tmp_path / "connects.py").write_text(text + "    os.close(ENDS[0].fileno())\n")
    result = run(order(tmp_path, "connects:train", import_path=(str(tmp_path),)), zygote_pool)
    assert (result.started.method, result.ended.exit_code, result.notices, result.log) == ("fork", 0, [], "")


@pytest.mark.fault(
    "trial",
    "files left open that cannot be written",
    "a node alone: a pipe that nobody reads; a file at the limit for files",
    "SUCCEEDED within the time for it; one line says what is missing",
)
@pytest.mark.parametrize(
    ("trainer", "said"),
    [("leaves_a_full_pipe", "could not be finished"), ("leaves_a_file_too_large", "File too large")],
)
def test_what_cannot_be_written_at_the_end_is_told(
    tmp_path: Path, zygote_pool: ZygotePool, trainer: str, said: str
) -> None:
    result = run(order(tmp_path, trainer), zygote_pool)
    assert result.ended.exit_code == 0
    (notice,) = result.notices
    assert said in notice


def test_files_come_back_from_a_node_that_does_not_see_the_sweep(
    tmp_path: Path, zygote_pool: ZygotePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    zygote_pool.close()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    wanted = order(tmp_path, "fills", {"size": 5000}, sweep_uid="another", file_cap=4000)
    result = run(wanted, zygote_pool)
    assert not Path(wanted.folder).exists()
    assert result.filed == {"files/sub/small.txt": b"small"}
    assert len(result.notices) == 1
    assert str(tmp_path) in result.notices[0]
    zygote_pool.close()


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that something removes meanwhile. The attempt ends as it would without it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    wanted = order(tmp_path, "nothing", sweep_uid="another")
    paths = trial_paths.paths_of(wanted)
    paths.files.mkdir(parents=True)
    for name in ("a", "b"):
        (paths.files / name).write_text(name)
    events = file_transfer.file_events(paths, wanted, succeeded=True)
    assert next(events) == Filed("files/a", b"a")
    (paths.files / "b").unlink()
    (notice,) = events
    assert isinstance(notice, Noticed)
    assert notice.text.startswith("1 file of run.dir could not be read (b: No such file or directory): it stays on ")


def test_checkpoints_travel_from_node_to_node(
    tmp_path: Path, zygote_pool: ZygotePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes that see neither each other nor the sweep's folder."""
    results = []
    for node, options in (("a", {"stop": 2}), ("b", {})):
        zygote_pool.close()
        (tmp_path / node).mkdir()
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.setenv("TMPDIR", str(tmp_path / node))
        last = results[0].saved[-1].checkpoint if results else None
        wanted = order(tmp_path, "keeps", {"steps": 5, **options}, sweep_uid="another", restore=(last,) if last else ())
        sent = {last.path: results[0].filed[last.path]} if last else {}
        results.append(run(wanted, zygote_pool, states=sent))
    zygote_pool.close()
    first, second = results
    assert first.ended.exit_code == 9
    assert second.restored == [2]
    whole = order(tmp_path, "keeps", {"steps": 5}, attempt=2)
    run(whole, zygote_pool)
    expected = (Path(whole.folder) / "files" / "drawn.json").read_bytes()
    assert second.filed["files/drawn.json"] == expected


def test_a_folder_is_saved_and_restored(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    first = run(order(tmp_path, "keeps_a_folder", {"steps": 5, "stop": 2}), zygote_pool)
    last = first.saved[-1].checkpoint
    second = run(order(tmp_path, "keeps_a_folder", {"steps": 5}, attempt=2, restore=(last,)), zygote_pool)
    assert (second.ended.exit_code, second.restored, second.notices) == (0, [2], [])
    folder = Path(order(tmp_path, "keeps_a_folder").folder)
    found = (folder / "files" / "drawn").read_text()
    assert {path.suffix for path in (folder / "checkpoints").iterdir()} == {".state"}, "no copy is left"
    (tmp_path / "other").mkdir()
    whole = order(tmp_path / "other", "keeps_a_folder", {"steps": 5})
    run(whole, zygote_pool)
    assert (Path(whole.folder) / "files" / "drawn").read_text() == found


def test_files_are_sent_to_a_node_that_does_not_see_the_sweep(
    tmp_path: Path, zygote_pool: ZygotePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They replace the node's own, which may come from an attempt before the last."""
    home = tmp_path / "home"
    (home / "files" / "sub").mkdir(parents=True)
    (home / "files" / "sub" / "last.ckpt").write_text("new")
    (home / "files" / "large").write_text("x" * 100)
    sent = {name: path.read_bytes() for name, path in file_transfer.files_to_send(home, cap=50)}
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    wanted = order(tmp_path, "lists", sweep_uid="another", attempt=2)
    stale = trial_paths.paths_of(wanted).files / "sub" / "last.ckpt"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    zygote_pool.close()
    result = run(wanted, zygote_pool, states=sent)
    zygote_pool.close()
    assert result.log == "sub/last.ckpt new\n"


def test_half_written_checkpoints_are_deleted(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    """That of an attempt whose supervisor was killed, and that of this one."""
    wanted = order(tmp_path, "dies_while_it_saves")
    earlier = Path(wanted.folder) / "checkpoints" / ".1-step-3.state.77.part"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    assert run(wanted, zygote_pool).ended.signal == signal.SIGXFSZ
    assert list(earlier.parent.iterdir()) == []


def test_a_missing_checkpoint_is_reported(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    wanted = order(tmp_path, "keeps", {"steps": 1}, restore=(Checkpoint(3, "checkpoints/1-step-3.state"),))
    result = run(wanted, zygote_pool)
    assert result.ended.exit_code == 0
    assert result.restored == []
    assert "the checkpoint of step 3 cannot be read" in result.notices[0]
