"""`orchestrate stop`: stops a running sweep, as Ctrl-C in its terminal does."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orchestrator.cli.common import Parser, find_sweep, sweep_command
from orchestrator.folder.lock import holder_of
from orchestrator.folder.requests import send_request
from orchestrator.manifest.reader import Reader

TIMEOUT = 120.0  # seconds until the command no longer waits for the sweep to end


def run(words: Sequence[str]) -> int:
    parser = Parser(
        "stop",
        "[SWEEP]",
        "Stop a sweep. Running trials get `sweep.grace` to save their state.",
        ["stop", "stop address-tagging"],
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    folder = find_sweep(parser.read(words))
    if holder_of(folder) is None:
        print(f"{folder.name} is not running")
        return 0
    answer = send_request(folder, {"kind": "stop"})
    print(f"{folder.name}: {answer or 'asked to stop'}", flush=True)
    until = time.monotonic() + TIMEOUT
    while holder_of(folder) is not None:
        if time.monotonic() > until:
            print(f"still ending: orchestrate status {folder.name} --watch")
            return 1
        time.sleep(0.1)
    with Reader(folder) as reader:
        plan = reader.plan()
    again = f": {sweep_command(plan, folder)}" if plan else ""
    print(f"stopped; the same sweep command continues it{again}")
    return 0
