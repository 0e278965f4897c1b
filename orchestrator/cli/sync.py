"""`orchestrate sync`: replay to W&B whatever has not arrived."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.cli.common import Parser, find_sweep
from orchestrator.tracking import control


def run(words: Sequence[str]) -> int:
    parser = Parser("sync", "[SWEEP]", "Send to W&B whatever has not arrived there, from the manifest.")
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    folder = find_sweep(parser.read(words))
    count = control.sync(folder, lambda line: print(line, flush=True))
    print(f"{folder.name}: {count} run{'s' * (count != 1)} sent" if count else f"{folder.name}: nothing to send")
    return 0
