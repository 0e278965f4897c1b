"""Files that go back to the sweep's folder from a node that does not see it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.files import replacing
from orchestrator.model.events import Event, Filed, Noticed, Saved
from orchestrator.model.order import Order
from orchestrator.node.shared.trial_paths import FILES, TrialPaths


def checkpoint(paths: TrialPaths, order: Order, saved: Saved) -> Iterator[Event]:
    """A saved state, and then the word of it. One that newer ones have replaced meanwhile is passed over."""
    path = paths.root / saved.checkpoint.path
    try:
        if path.stat().st_size > order.file_cap:
            yield Noticed(f"the state of step {saved.checkpoint.step} is above the cap: {_stays(path)}")
        else:
            yield Filed(saved.checkpoint.path, path.read_bytes())
    except FileNotFoundError:
        return
    yield saved


def files(paths: TrialPaths, order: Order, succeeded: bool) -> Iterator[Event]:
    """What the trainer left in `run.dir`, up to the cap of the order.

    A trial that failed may come back to this node, so its scratch folder stays.
    """
    left, behind = order.file_cap, 0
    for path in sorted(_regular(paths.files)):
        size = path.stat().st_size
        if size > left:
            behind += 1
            continue
        left -= size
        yield Filed(f"{FILES}/{path.relative_to(paths.files)}", path.read_bytes())
    if not behind and succeeded:
        shutil.rmtree(paths.root, ignore_errors=True)
    if behind:
        yield Noticed(f"{behind} file(s) of run.dir are above the cap of {order.file_cap} bytes: {_stays(paths.files)}")


def receive(paths: TrialPaths, states: Mapping[str, bytes]) -> None:
    """Put states where `run.restore` looks for them, and files into `run.dir`; by path below the trial's folder.

    A state of a name is always the same. A file is not: the coordinator's is what an attempt ended with, while what
    lies here may be from one before that.
    """
    for name, data in states.items():
        path = paths.root / name
        if not paths.shared and (name.startswith(f"{FILES}/") or not path.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(data)


def kept(folder: Path, cap: int) -> Iterator[tuple[str, Path]]:
    """What of `run.dir` is put back before a further attempt, by path below the trial's folder; up to `cap` bytes."""
    left = cap
    for path in sorted(_regular(folder / FILES)):
        size = path.stat().st_size
        if size <= left:
            left -= size
            yield str(path.relative_to(folder)), path


def _regular(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _stays(path: Path) -> str:
    return f"it stays on {socket.gethostname()} in {path}"
