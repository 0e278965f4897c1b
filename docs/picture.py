"""Make docs/terminal.svg from a real run: `python docs/picture.py`, in the project's folder."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from orchestrator.cli import view
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.results.snapshot import read_snapshot

COMMAND = ["sweep", "conf/sweep.yaml"]


def main() -> None:
    with tempfile.TemporaryDirectory() as runs:
        subprocess.run([sys.executable, "-m", "orchestrator.cli", *COMMAND, "--runs", runs, "--detach"], check=True)
        picture = picture_of(SweepFolder(Path(runs) / "address-tagging"))
        Path("docs/terminal.svg").write_text(picture, encoding="utf-8")
        subprocess.run([sys.executable, "-m", "orchestrator.cli", "status", "--watch", "--runs", runs], check=True)


def picture_of(folder: SweepFolder) -> str:
    """The live view after 60 % of the trials have finished, when two running trials have reported metrics."""
    with Reader(folder) as reader:
        while True:
            snap = read_snapshot(folder, reader)
            reporting = [row for row in snap.running if len(row.metrics) > 1]
            if snap.finished > snap.total * 0.6 and len(reporting) > 1:
                break
            time.sleep(0.05)
    console = Console(record=True, width=118, force_terminal=True, file=io.StringIO())
    console.print(f"[bold green]$[/bold green] orchestrate {' '.join(COMMAND)}")
    console.print(view.render(snap, time.time(), console.width))
    return console.export_svg(title="orchestrate")


if __name__ == "__main__":
    main()
