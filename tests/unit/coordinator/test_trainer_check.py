"""What is wrong with a trainer is said in one message, before anything runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.coordinator.trainer_check import TrainerCheck
from orchestrator.errors import TrainerError
from orchestrator.model.trainer import parse
from orchestrator.node.shared.zygote_spec import ZygoteSpec

MODULES = {
    "good.py": """
        import functools

        def both(cfg, run): pass
        def one(cfg): pass
        def defaults(cfg, run=None, verbose=False): pass
        def anything(*args, **more): pass
        def named(cfg, run, *, verbose=False): pass
        async def awaited(cfg): pass
        def hide(function):
            return lambda *args: function(*args)
        @hide
        def hidden(cfg, run): pass
        class Trainer:
            def __init__(self, cfg, run): pass
        def decorate(function):
            @functools.wraps(function)
            def inner(*args, **more): return function(*args, **more)
            return inner
        @decorate
        def decorated(cfg): pass
        print("noise without an end of line", end="")
    """,
    "bad.py": """
        def none(): pass
        def three(cfg, run, extra): pass
        def needs(cfg, run, *, device): pass
        number = 3
        def steps(cfg, run):
            yield 1
        async def asynchronous_steps(cfg):
            yield 1
        def timed(function):
            def wrapper(*args, **more): return function(*args, **more)
            return wrapper
        def logged(function):
            def inner(*args): return function(*args)
            return inner
        @timed
        def hidden(cfg): pass
        @logged
        @timed
        def twice_hidden(cfg): pass
    """,
    "commands.py": """
        import click

        @click.command()
        @click.option("--lr", type=float)
        def train(lr): pass
    """,
    "missing_package.py": "import no_such_package",
    "missing_name.py": "\n\nfrom json import no_such_name",
    "broken.py": "def train(cfg):\n    retrun 1\n",
    "raises.py": "\n\n\nraise ValueError('at import')",
    "deep.py": "import json\n\njson.loads('{')",
    "exits.py": "import sys\nsys.exit(3)",
    "vanishes.py": "import os\nprint('last words', flush=True)\nos._exit(7)",
    "long.py": "raise ValueError('begin' + 'x' * 300_000 + 'end..')",
    "chatty.py": "import os\nprint('begin' + 'x' * 300_000 + 'end..', flush=True)\nos._exit(7)",
    "unspeakable.py": """
        class Odd(Exception):
            def __str__(self): raise TypeError
        raise Odd
    """,
    "unnamed.py": "raise ModuleNotFoundError('install it')",
    "pkg/__init__.py": "",
    "pkg/inner.py": "def train(cfg): pass",
    "src/deeper.py": "def train(cfg): pass",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        lines = text.splitlines()
        indent = 8 if text.startswith("\n        ") else 0
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")
    return tmp_path


def spec_of(project: Path, trainer: str) -> ZygoteSpec:
    return ZygoteSpec(parse(trainer), (str(project), str(project / "src")), str(project), 0, "fork", True)


def problem(project: Path, trainer: str) -> str:
    """What the check says; nothing if all is well."""
    check = TrainerCheck(spec_of(project, trainer))
    try:
        check.result()
    except TrainerError as error:
        return str(error)
    finally:
        check.close()
    return ""


GOOD = ["both", "one", "defaults", "anything", "named", "Trainer", "decorated", "awaited", "hidden"]


@pytest.mark.parametrize("trainer", [*(f"good:{name}" for name in GOOD), "pkg.inner:train", "deeper:train"])
def test_a_good_trainer(project: Path, trainer: str) -> None:
    assert problem(project, trainer) == ""


@pytest.mark.parametrize(
    ("trainer", "messages"),
    [
        ("nowhere:train", ["no module named 'nowhere'", "is nowhere.py below the folder you run from"]),
        ("pkg.nowhere:train", ["no module named 'pkg.nowhere'", "is pkg/nowhere.py below"]),
        ("good:bth", ["good has no function 'bth'", "did you mean good:both?"]),
        ("good:", ["has no function ''", "name a function as module:function"]),
        (
            "missing_package:train",
            ["missing_package.py:1: No module named 'no_such_package'", "pip install no_such_pack"],
        ),
        ("missing_name:train", ["missing_name.py:3: ImportError: cannot import name 'no_such_name'"]),
        ("broken:train", ["SyntaxError: invalid syntax (broken.py, line 2)"]),
        ("raises:train", ["raises.py:4: ValueError: at import"]),
        ("exits:train", ["exits.py:2: SystemExit: 3"]),
        ("vanishes:train", ["its import ends the process: last words"]),
        ("unnamed:train", ["unnamed.py:1: install it"]),
        ("bad:none", ["takes 0 arguments", "train(cfg, run) or train(cfg)"]),
        ("bad:three", ["takes 3 arguments"]),
        ("bad:needs", ["needs the argument 'device'"]),
        ("bad:steps", ["is a generator, so a call runs nothing of it", "run.report"]),
        ("bad:asynchronous_steps", ["is a generator"]),
        ("bad:hidden", ["a decorator hides its parameters", "@functools.wraps(function) above wrapper in timed"]),
        ("bad:twice_hidden", ["a decorator hides its parameters", "above inner in logged"]),
        ("commands:train", ["is a command of click", "def run_train(cfg): return train.callback(**cfg)"]),
        ("bad:number", ["number is not a function: its type is int"]),
    ],
)
def test_what_is_wrong_is_told(project: Path, trainer: str, messages: list[str]) -> None:
    text = problem(project, trainer)
    for message in messages:
        assert message in text
    assert text.startswith(f"sweep.trainer ({trainer}): ")
    assert len(text.splitlines()) <= 2
    assert "None" not in text


@pytest.mark.parametrize(
    ("trainer", "first", "last"),
    [
        ("long:train", "long.py:1: ValueError: begin", "end.."),
        ("chatty:train", "its import ends the process: begin", "end.."),
        ("unspeakable:train", "unspeakable.py:4: Odd: ", "(its message cannot be shown: TypeError)"),
    ],
)
def test_whatever_an_import_says_is_told(project: Path, trainer: str, first: str, last: str) -> None:
    """Too long for one message between processes, or nothing that can be read."""
    text = problem(project, trainer)
    assert first in text
    assert text.partition("\n  → ")[0].endswith(last)
    assert len(text) < 4_000


def test_a_frame_of_the_users_is_named_rather_than_a_librarys(project: Path) -> None:
    assert "deep.py:3: JSONDecodeError" in problem(project, "deep:train")


def test_an_import_that_takes_too_long(project: Path) -> None:
    (project / "slow.py").write_text(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    check = TrainerCheck(spec_of(project, "slow:train"), patience=0.3)
    until_exists(project / "child")
    with pytest.raises(TrainerError, match="its import takes more than"):
        check.result()
    child = int((project / "child").read_text())
    until = time.monotonic() + 60  # killed it is; an orphan is gone when its new parent has seen it
    while not gone(child):
        assert time.monotonic() < until
        time.sleep(0.01)


def until_exists(path: Path, patience: int = 60) -> None:
    until = time.monotonic() + patience
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def test_a_check_that_is_called_off_leaves_no_process(project: Path) -> None:
    (project / "slow.py").write_text("import os, time\nopen('child', 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    check = TrainerCheck(spec_of(project, "slow:train"))
    until_exists(project / "child")
    check.close()
    check.close()
    assert gone(int((project / "child").read_text()))


def test_a_check_sees_no_gpu(project: Path) -> None:
    (project / "looks.py").write_text(
        "import os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == ''\ndef train(cfg): pass\n"
    )
    assert problem(project, "looks:train") == ""
