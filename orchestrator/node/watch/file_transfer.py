"""Carry files between the sweep's folder and a node that does not see it, in both directions."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator import naming
from orchestrator.files import replacing
from orchestrator.model.events import Event, Filed, Noticed, Saved
from orchestrator.model.order import Order
from orchestrator.node.shared.trial_paths import FILES, TrialPaths


def checkpoint_events(paths: TrialPaths, order: Order, saved: Saved) -> Iterator[Event]:
    """A saved state, followed by `saved`. Nothing if newer states have replaced it meanwhile."""
    path = paths.root / saved.checkpoint.path
    try:
        if path.stat().st_size > order.file_cap:
            yield Noticed(f"the state of step {saved.checkpoint.step} is above the cap: {_stays(path)}")
        else:
            yield Filed(saved.checkpoint.path, path.read_bytes())
    except FileNotFoundError:
        return
    except OSError as error:
        text = f"the state of step {saved.checkpoint.step} could not be read: {error.strerror}: {_stays(path)}"
        yield Noticed(text)
    yield saved


def file_events(paths: TrialPaths, order: Order, succeeded: bool) -> Iterator[Event]:
    """The files in `run.dir`, up to the order's cap.

    The trial's scratch folder on this node is deleted if the trial has succeeded and all files fit; a trial that failed
    may be tried again here.
    """
    room, left_out = order.file_cap, 0
    unreadable: list[OSError] = []
    for path in sorted(_regular_files(paths.files)):
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size <= room else None
        except OSError as error:
            unreadable.append(error)
            continue
        if data is None:
            left_out += 1
            continue
        room -= size
        yield Filed(f"{FILES}/{path.relative_to(paths.files)}", data)
    if not left_out and not unreadable and succeeded:
        shutil.rmtree(paths.root, ignore_errors=True)
    where = _stays(paths.files)
    if left_out:
        yield Noticed(
            f"{naming.count(left_out, 'file')} of run.dir left out, above the cap of {order.file_cap} bytes: {where}"
        )
    if unreadable:
        first = f"{os.path.basename(unreadable[0].filename)}: {unreadable[0].strerror}"
        yield Noticed(f"{naming.count(len(unreadable), 'file')} of run.dir could not be read ({first}): {where}")


def write_files(paths: TrialPaths, files: Mapping[str, bytes]) -> None:
    """Write what the coordinator sent: states for `run.restore`, and files of `run.dir`, by path in the trial's folder.

    A state that is here already stays, since states of one name are equal. A file of `run.dir` is overwritten: the
    coordinator has what the last attempt left, while the file here may come from an attempt before that.
    """
    for name, data in files.items():
        path = paths.root / name
        if not paths.shared and (name.startswith(f"{FILES}/") or not path.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(data)


def files_to_send(folder: Path, cap: int) -> Iterator[tuple[str, Path]]:
    """The files of `run.dir` that a further attempt gets back, by path in the trial's folder; up to `cap` bytes."""
    room = cap
    for path in sorted(_regular_files(folder / FILES)):
        size = path.stat().st_size
        if size <= room:
            room -= size
            yield str(path.relative_to(folder)), path


def _regular_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _stays(path: Path) -> str:
    return f"it stays on {socket.gethostname()} in {path}"
