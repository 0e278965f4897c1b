"""Run a trial in the user's own terminal, for `orchestrate try`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from orchestrator.model.events import Ended
from orchestrator.model.order import Order
from orchestrator.node.inside import ending
from orchestrator.node.inside.trial import call_trainer, import_from, prepare
from orchestrator.node.shared.journal import JournalWriter
from orchestrator.node.shared.trial_paths import TrialPaths


def run_inline(order: Order, echo: Callable[[str], None]) -> Ended:
    """Run one attempt in this process, where the trainer has the user's terminal and `breakpoint()` works.

    `echo` gets each report, notice and saved state as a line; what the trainer raises is shown on stderr. Files go to
    a temporary folder, whose path is echoed at the end. Everything is set up as in other trials but for the seed of
    `hash()`, which only a new interpreter takes.
    """
    os.environ.update({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    import_from(order.import_path)
    paths = TrialPaths(tempfile.mkdtemp(prefix=f"orchestrate-try-{order.trial_id}-"), shared=True)
    started = time.time()
    code, failure, error = call_trainer(prepare(order, None, paths, _TerminalJournal(echo)))
    if failure is not None and failure.type == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if failure is not None and error is not None:
        ending.show(error, failure)
    if any(paths.root.iterdir()):
        echo(f"files: {paths.root}")
    else:
        paths.root.rmdir()
    return Ended(time.time(), exit_code=code, failure=failure, entered=started, left=time.time(), left_code=code)


class _TerminalJournal(JournalWriter):
    """Echoes what the user should see, and writes nothing."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo

    def report(self, step: int, text: str) -> None:
        self._echo(f"step {step}: {text}")

    def _append(self, line: str) -> None:
        """Nothing is written."""

    def put(self, tag: str, value: Any) -> None:
        if tag == "N":
            self._echo(value)
        elif tag == "S":
            self._echo(f"saved the state of step {value[0]}")
