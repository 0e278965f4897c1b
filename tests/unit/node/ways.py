"""Run one trainer three ways: with plain `python`, in a fresh process of ours, and in a fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.files import PACKAGE
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.support import order, run

WAYS = ("python", "spawn", "fork")
NAMES = "shared"  # a file of `run.dir` in which a trainer writes the names of its shared memory

# What a user's own `train.py` would have at its end: call the trainer, with a `run` that does the least.
PLAIN = """
import asyncio, importlib, inspect, json, pathlib, sys, types
rows, files = map(pathlib.Path, sys.argv[2:4])
def report(metrics, step=None):
    with rows.open("a") as file:
        file.write(json.dumps(metrics) + "\\n")
result = importlib.import_module(sys.argv[1]).train(
    types.SimpleNamespace(**json.loads(sys.argv[4])), types.SimpleNamespace(dir=files, report=report))
if inspect.iscoroutine(result):
    result = asyncio.run(result)
if result is not None:
    report(result if isinstance(result, dict) else {"objective": result})
"""


@dataclass(frozen=True)
class Seen:
    """What a run of a trainer leaves behind."""

    exit_code: int | None
    rows: list[dict[str, Any]]
    log: list[str]  # lines, without those that say where in our files or in `PLAIN` a call came from
    files: dict[str, bytes]  # of `run.dir`
    shared: list[str]  # those of its `NAMES` that are still in /dev/shm


def seen(
    way: str, folder: Path, module: str, config: dict[str, Any], zygote_pool: ZygotePool, forks: bool = True
) -> Seen:
    """Run `train` of the module in this folder. `forks`: nothing in the module forbids it."""
    at = folder / f"{way}-{module}-{'-'.join(map(str, config.values()))}"
    files = at / "sweep" / "trials" / "0123456789ab" / "files"
    files.mkdir(parents=True)
    if way == "python":
        command = [sys.executable, "-c", PLAIN, module, str(at / "rows"), str(files), json.dumps(config)]
        env = {**os.environ, "PYTHONPATH": str(folder)}
        stdout, both = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=both, text=True, env=env)
        rows = [json.loads(line) for line in (at / "rows").read_text().splitlines()] if (at / "rows").exists() else []
        return Seen(done.returncode, rows, _lines(done.stdout), _contents(files), _still_shared(files))
    wanted = order(at, f"{module}:train", config, import_path=(str(folder),), cwd=str(folder))
    result = run(replace(wanted, start=way), zygote_pool)  # type: ignore[arg-type]
    assert result.started.method == (way if forks else "spawn")
    assert len(result.notices) == (way == "fork" and not forks)
    rows = [row for _, row in result.rows]
    return Seen(result.ended.exit_code, rows, _lines(result.log), _contents(files), _still_shared(files))


def _lines(log: str) -> list[str]:
    """The lines of a log without the frames that are not the user's: of `PLAIN`, and of ours."""
    kept, frame = [], False
    for line in log.splitlines():
        frame = '  File "<string>"' in line or f'  File "{PACKAGE}' in line or (frame and line.startswith("    "))
        kept += [] if frame else [line]
    return kept


def _contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in files.items() if name != NAMES}


def _still_shared(files: Path) -> list[str]:
    names = (files / NAMES).read_text().split() if (files / NAMES).exists() else []
    return [name for name in names if Path("/dev/shm", name).exists()]
