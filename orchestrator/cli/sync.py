"""`orchestrate sync`: replay to the sweep's trackers whatever has not arrived."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orchestrator.cli.common import Parser, find_sweep
from orchestrator.errors import OrchestratorError
from orchestrator.folder.paths import SweepFolder
from orchestrator.tracking import control
from orchestrator.tracking.trackers import TRACKERS


def run(words: Sequence[str]) -> int:
    parser = Parser(
        "sync",
        "[SWEEP]",
        "Send to W&B and other trackers whatever has not arrived there.",
        ["sync", "sync address-tagging"],
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    folder = find_sweep(parser.read(words))
    names = control.synced(folder)
    failed: list[OrchestratorError] = []
    for name in names:  # one that fails does not keep the others waiting
        try:
            _sync(folder, name, f"{TRACKERS[name].title}: " if len(names) > 1 else "")
        except OrchestratorError as error:
            failed.append(error)
    for other in failed[1:]:
        print(f"orchestrate: {other}", file=sys.stderr)
    if failed:
        raise failed[0]
    return 0


def _sync(folder: SweepFolder, name: str, to: str) -> None:
    count = control.sync(folder, name, lambda line: print(f"{to}{line}", flush=True))
    done = f"{count} run{'s' * (count != 1)} sent" if count else "nothing to send"
    print(f"{folder.name}: {to}{done}")
