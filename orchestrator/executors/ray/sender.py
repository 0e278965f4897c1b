"""Sends to a node that does not see the sweep's folder what its attempt needs from there, when the node asks.

Files are read in a thread of its own: a checkpoint may have gigabytes, and the coordinator has others to look after.
"""

from __future__ import annotations

import pickle
import queue
import threading
from pathlib import Path
from typing import Any

import ray

from orchestrator.executors.ray.slot import Parcel, Task
from orchestrator.model.order import Order
from orchestrator.node.watch import file_transfer
from orchestrator.provenance.code_copy import pack


class Sender:
    """Puts files into Ray's object store, and references to them on the board."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._packed = ""
        self._code: list[Any] = []
        self._thread: threading.Thread | None = None

    def send(self, task: Task) -> None:
        """Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            order: Order = pickle.loads(task.order)
            try:
                parcel = Parcel(self._packed_code(order), _states(order))
            except Exception as error:  # a file that cannot be read, or a full object store: it is this attempt's end
                parcel = Parcel(problem=f"what it needs cannot be sent to its node: {type(error).__name__}: {error}")
            self._board.deliver.remote(task.key, parcel)

    def _packed_code(self, order: Order) -> list[Any]:
        """A reference to the project's files."""
        if order.import_path and self._packed != order.import_path[0]:
            self._code = [ray.put(pack(Path(order.import_path[0])))]
            self._packed = order.import_path[0]
        return self._code


def _states(order: Order) -> dict[str, Any]:
    """References to the newest two checkpoints that the order names, and to what `run.dir` held."""
    folder = Path(order.folder)
    found = {saved.path: folder / saved.path for saved in order.restore[:2]}
    if order.attempt > 1:
        found |= file_transfer.files_to_send(folder, order.file_cap)
    return {name: ray.put(path.read_bytes()) for name, path in found.items()}
