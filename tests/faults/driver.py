"""The command line as users have it, with trials on this machine without Ray: two slots, a logical GPU each.

It can end itself where nobody from outside could: DIE_AT="COMMIT 3" kills it before its third COMMIT, DIE_AT="* 90" at
the ninetieth thing it does since it opened the manifest (a statement, an opened or renamed file, a started
process). At its end it says in the file COUNT how many things that were.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from orchestrator.cli import sweep
from orchestrator.cli.main import main as orchestrate
from orchestrator.executors.local import LocalExecutor

DEEDS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "fcntl.flock", "subprocess.Popen"}


class Deeds:
    """Counts what this process does, from its first connection to a manifest on; kills it at one of them."""

    def __init__(self, die_at: str) -> None:
        word, _, number = die_at.partition(" ")
        self.word, self.number = word, int(number or 0)
        self.seen: Counter[str] = Counter()
        self.connect, sqlite3.connect = sqlite3.connect, self.connected
        sys.addaudithook(self.heard)

    def connected(self, *words: Any, **options: Any) -> sqlite3.Connection:
        db = self.connect(*words, **options)
        db.set_trace_callback(lambda text: self.did(text.split()[0]))
        return db

    def heard(self, event: str, _: tuple[Any, ...]) -> None:
        if event == "sqlite3.connect" or (event in DEEDS and self.seen):
            self.did(event)

    def did(self, what: str) -> None:
        for name in ("*", what):
            self.seen[name] += 1
            if name == self.word and self.seen[name] == self.number:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    # What starts the executor is the only thing put in another's place: all else is what `orchestrate` runs.
    sweep.start_executor = lambda address, gpus: LocalExecutor(cpus=2, gpus=("0", "1"))  # type: ignore[assignment]
    deeds = Deeds(os.environ.get("DIE_AT", ""))
    code = orchestrate()
    if "COUNT" in os.environ:
        Path(os.environ["COUNT"]).write_text(json.dumps(deeds.seen))
    return code


if __name__ == "__main__":
    sys.exit(main())
