"""A sweep whose trials need GPUs that others use waits until these are idle. It never runs on the CPU instead."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.coordinator.session import Session, interruptible
from orchestrator.folder.requests import answer_request, pending_requests


def await_gpus(session: Session, say: Callable[[str], None], pause: float = 1.0) -> bool:
    """Wait until the launch has its GPUs, and start the executor. False if the user has ended the session by then."""
    launch = session.launch
    if launch is None or session.executor is not None:
        return launch is not None
    assert launch.here is not None
    if session.check is not None:
        session.check.close()  # nothing of ours is to hold a GPU
    told = ""
    with interruptible(session, lambda: None, lambda: None):
        while launch.short and not session.interrupted:
            if launch.users != told:
                told = launch.users
                say(f"waiting for GPUs that others use: {told}")
            for path, request in pending_requests(session.folder):
                session.interrupted |= request.kind == "stop"
                answer_request(path, "it ends" if session.interrupted else "not now: it waits for GPUs")
            time.sleep(pause)
            launch.here.retry()
    if session.interrupted:
        return False
    session.executor = launch.executor()
    return True
