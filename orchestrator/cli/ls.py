"""`orchestrate ls`: a list of all sweeps."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orchestrator.cli import view
from orchestrator.cli.common import Parser, print_json
from orchestrator.errors import OrchestratorError
from orchestrator.folder.paths import all_sweeps, runs_root
from orchestrator.manifest.reader import Reader
from orchestrator.results.snapshot import read_snapshot


def run(words: Sequence[str]) -> int:
    parser = Parser("ls", "[options]", "All sweeps, the latest first.", ["ls", "ls --runs /data/runs --json"])
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.read(words)
    root = runs_root(options.runs)
    found = all_sweeps(root)
    if not found and not options.json:
        print(f"no sweep in {root} yet: orchestrate sweep conf/sweep.yaml")
    width = max((len(folder.name) for folder in found), default=0)
    for folder in found:
        try:
            with Reader(folder) as reader:
                snap = read_snapshot(folder, reader, shown=0)
        except OrchestratorError as error:
            if options.json:
                print_json({"sweep": folder.name, "unreadable": error.what})
            else:
                print(f"{folder.name:<{width}}  unreadable: {error.what}")
            continue
        if options.json:
            print_json(snap.as_json())
            continue
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(snap.created)) if snap.created else "not planned yet"
        live = "  running now" if snap.holder else ""
        print(f"{folder.name:<{width}}  {when}  {snap.finished}/{snap.total}  {view.counts_text(snap.counts)}{live}")
    return 0
