"""Work that is done once for many trials does not change their results."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, OmegaConf

from orchestrator.node.inside import config
from orchestrator.node.launch.warm import Upkeep
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared import memory_pages
from tests.unit.node.support import order, run

ROOT = Path(__file__).parents[3]


def mappings(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(["a", "b.c", "$"]), inner, max_size=2)


# Few keys and values, so that two trials' configs often differ in some values only.
values = st.sampled_from([None, True, 1, 1.0, -0.0, 0.0, "1", "", "???", "${x}", "$", r"\${a}", float("nan"), 2**70])
trees = st.recursive(values, lambda inner: st.lists(inner, max_size=2) | mappings(inner), max_leaves=5)


def nodes(node: Any) -> Any:
    """All that makes up a config, types and flags included."""
    description = type(node), node._metadata.ref_type, node._metadata.optional, node._metadata.flags
    if isinstance(node, DictConfig) and node._value() is not None:
        inner = {key: nodes(child) for key, child in node._value().items()}  # type: ignore[union-attr]
    elif isinstance(node, ListConfig) and node._value() is not None:
        inner = [nodes(child) for child in node._value()]  # type: ignore[assignment,union-attr]
    else:
        inner = repr(node._value())  # type: ignore[assignment]
    return description, list(inner) if isinstance(inner, dict) else None, inner


@given(st.lists(mappings(trees), max_size=6))
def test_a_reused_config_equals_a_new_one(sweep: list[dict[str, Any]]) -> None:
    configs = config.ReusedConfig()
    for data in sweep:
        assert nodes(configs.of(data)) == nodes(config.create(data))


def test_a_config_is_reused_if_only_values_differ() -> None:
    configs = config.ReusedConfig()
    first = configs.of({"lr": 0.1, "model": {"sizes": [1, 2], "name": "a"}})
    second = configs.of({"lr": 0.2, "model": {"sizes": [1, 3], "name": "b"}})
    assert second is first
    assert OmegaConf.to_container(second) == {"lr": 0.2, "model": {"sizes": [1, 3], "name": "b"}}
    assert configs.of({"lr": 0.2, "model": {"sizes": [1], "name": "b"}}) is not first


def test_a_trial_that_changes_its_config_does_not_affect_the_next(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    (tmp_path / "changing.py").write_text(
        "from omegaconf import OmegaConf, open_dict\n"
        "def train(cfg, run):\n"
        "    print(OmegaConf.to_container(cfg))\n"
        "    cfg.lr, cfg.sizes[0] = 7.0, 8\n"
        "    cfg.sizes.append(9)\n"
        "    with open_dict(cfg):\n"
        "        cfg.new = 1\n"
    )
    sweep: list[dict[str, Any]] = [
        {"lr": 0.1, "sizes": [1]},
        {"lr": 0.2, "sizes": [1]},
        {"lr": None, "sizes": [3]},
        {"lr": 0.2, "sizes": [3, 4], "more": {"a": "x"}},
        {"sizes": [3, 4], "lr": 1, "more": {"a": "y"}},
    ]
    for data in sweep:
        result = run(order(tmp_path, "changing:train", data, import_path=(str(tmp_path),)), zygote_pool)
        assert result.ended.exit_code == 0
        assert result.log == f"{data}\n"


ENDING = """
import atexit, logging, logging.handlers, multiprocessing, os, sys, time, weakref
import torch  # its exit handlers and loggers are there before the fork
early = logging.handlers.MemoryHandler(100, target=logging.FileHandler(os.environ["WRITTEN"], delay=True))
class Thing: pass
def late(path):
    time.sleep(0.2)
    print("child", file=open(path, "a"), flush=True)
def train(cfg, run):
    note = lambda word: print(word, file=open(os.environ["WRITTEN"], "a"), flush=True)
    logging.getLogger("early").addHandler(early)
    logging.getLogger("early").error("kept in memory")
    thing = Thing()
    weakref.finalize(thing, note, "finalized")
    globals()["thing"] = thing
    atexit.register(note, "exit handler")
    multiprocessing.get_context("fork").Process(target=late, args=(os.environ["WRITTEN"],)).start()
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_trial_exits_as_an_interpreter_does(tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    monkeypatch.setenv("WRITTEN", str(tmp_path / "written"))
    zygote_pool = ZygotePool()
    result = run(order(tmp_path, "ending:train", import_path=(str(tmp_path),), start=start), zygote_pool)
    zygote_pool.close()
    assert (result.ended.exit_code, result.log) == (0, "")
    written = (tmp_path / "written").read_text().split("\n")
    assert sorted(written) == sorted(["exit handler", "finalized", "child", "kept in memory", ""])


CACHING = """
import atexit, os, shutil, tempfile
CACHE = tempfile.mkdtemp(dir=os.path.dirname(__file__))
atexit.register(shutil.rmtree, CACHE)
"""
USING = """
import sys
sys.path.append({library!r})
import caching, os
def train(cfg, run):
    return os.path.isdir(caching.CACHE)
"""


def test_no_trial_deletes_the_folder_that_a_library_has_made_for_all(tmp_path: Path) -> None:
    for name, text in (("library/caching", CACHING), ("project/using", USING)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.py").write_text(text.format(library=str(tmp_path / "library")))
    wanted = order(tmp_path, "using:train", import_path=(str(tmp_path / "project"),), cwd=str(tmp_path / "project"))
    zygote_pool = ZygotePool()
    for _ in range(2):
        result = run(wanted, zygote_pool)
        assert result.started.method == "fork"
        assert result.rows == [(0, {"objective": 1})], result.log
    zygote_pool.close()
    assert list((tmp_path / "library").glob("tmp*")) == [], "the zygote has deleted it"


LOCKED = """
import logging, os, signal, threading
handler = logging.StreamHandler()
logger = logging.getLogger("mine")
logger.addHandler(handler)
def train(cfg, run):
    locked, done = threading.Event(), threading.Event()
    def hold():
        with handler.lock:
            locked.set()
            done.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)
        logger.warning("logged by the child")
        os._exit(0)
    run.report({"status": os.waitpid(child, 0)[1]})
    done.set()
    thread.join()
"""


def test_logging_works_in_a_child_that_a_trial_forks_while_a_thread_logs(
    tmp_path: Path, zygote_pool: ZygotePool
) -> None:
    (tmp_path / "locked.py").write_text(LOCKED)
    result = run(order(tmp_path, "locked:train", import_path=(str(tmp_path),)), zygote_pool)
    assert result.started.method == "fork"
    assert result.rows == [(0, {"status": 0})]
    assert result.log == "logged by the child\n"


DRAWING = """
import numpy, random, torch
EARLY = [random.random(), numpy.random.rand(), torch.rand(()).item()]
def train(cfg, run):
    run.report({"python": random.random(), "numpy": numpy.random.rand(), "torch": torch.rand(()).item()})
"""
INLINE = """
import sys
from pathlib import Path
from tests.unit.node.support import order
from orchestrator.node.inside.inline import run_inline
folder = Path(sys.argv[1])
run_inline(order(folder, "drawing:train", import_path=(str(folder),)), print)
"""


def test_a_module_that_draws_random_numbers_does_not_affect_trials(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    """The seed is set when the trainer is called: after a fork, in a fresh process, and in the user's terminal."""
    (tmp_path / "drawing.py").write_text(DRAWING)
    rows = []
    for start in ("fork", "spawn"):
        result = run(order(tmp_path, "drawing:train", import_path=(str(tmp_path),), start=start), zygote_pool)
        assert result.started.method == start
        (told,) = result.notices  # or a folder that is named by such a number would be shared without a word
        assert told.startswith("random and numpy.random and torch: random numbers were drawn")
        rows += result.rows
    done = subprocess.run(
        [sys.executable, "-c", INLINE, tmp_path], cwd=ROOT, text=True, capture_output=True, check=True
    )
    echoed = re.fullmatch(r"step 0: (.*)\n", done.stdout)
    assert echoed is not None
    assert rows == [(0, json.loads(echoed[1]))] * 2


def test_a_package_that_imports_on_demand_does_so_before_the_first_fork(tmp_path: Path) -> None:
    (tmp_path / "lazy").mkdir()
    (tmp_path / "lazy" / "__init__.py").write_text(
        "import importlib\ndef __getattr__(name):\n    return getattr(importlib.import_module('lazy.heavy'), name)\n"
    )
    (tmp_path / "lazy" / "heavy.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def train(cfg, run):\n    run.report({'threads': threading.active_count()})\n"
    )
    zygote_pool = ZygotePool()
    result = run(order(tmp_path, "lazy:train", import_path=(str(tmp_path),)), zygote_pool)
    zygote_pool.close()
    assert "lazy cannot be forked: when it is imported, lazy/heavy.py:2 starts threads" in result.notices[0]
    assert result.rows == [(0, {"threads": 2})]


def test_a_repeated_import_has_one_thread_like_the_first(tmp_path: Path) -> None:
    (tmp_path / "second.py").write_text(
        "import os, pathlib\n"
        "print('imported with', os.environ['OPENBLAS_NUM_THREADS'])\n"
        "marker = pathlib.Path(__file__).with_suffix('.once')\n"
        "if not marker.exists():\n"
        "    marker.touch()\n"
        "    raise OSError('the network is down')\n"
        "def train(cfg, run):\n"
        "    print('runs with', os.environ['OPENBLAS_NUM_THREADS'])\n"
    )
    zygote_pool = ZygotePool()
    wanted = order(tmp_path, "second:train", import_path=(str(tmp_path),), threads=4)
    first, second = run(wanted, zygote_pool), run(wanted, zygote_pool)
    zygote_pool.close()
    assert first.ended.failure is not None
    assert first.ended.failure.message == "the network is down"
    assert (second.ended.exit_code, second.log) == (0, "imported with 1\nruns with 4\n")


@pytest.mark.parametrize(("quick", "early"), [(True, [1, 4, 32, 128]), (False, [1])])
def test_pages_are_collapsed_early_only_while_that_is_quick(quick: bool, early: list[int]) -> None:
    collapsed: list[int] = []

    def collapse(patience: float) -> bool:
        collapsed.append(trials)
        return quick or patience == math.inf

    upkeep, trials = Upkeep(collapse), 0
    while trials < 256:
        trials += 1
        upkeep.trial_ended()
    assert collapsed == [*early, 256]


def test_collapsing_pages_gives_up_when_its_time_is_over() -> None:
    assert not memory_pages.collapse_into_huge_pages(patience=-1.0)
    assert memory_pages.collapse_into_huge_pages()
