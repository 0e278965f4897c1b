"""Many trials on the terminal: as a table, as CSV, as JSON lines."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterable, Sequence

from orchestrator.cli.streams import for_programs
from orchestrator.manifest.db import Row
from orchestrator.results.listing import json_line


def print_json(rows: Iterable[Row]) -> None:
    """One object a line."""
    for_programs()
    sys.stdout.writelines(map(json_line, rows))


def print_csv(names: Sequence[str], columns: Sequence[Sequence[str]]) -> None:
    for_programs()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))


def print_table(titles: Sequence[str], columns: Sequence[Sequence[str]]) -> None:
    """Print an aligned table. On a terminal, the last column is cut at the right edge."""
    cells = [[title, *column] for title, column in zip(titles, columns, strict=True)]
    widths = [max(map(len, column)) for column in cells]
    room = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * len(widths[:-1]) if sys.stdout.isatty() else 0
    if room > 0:
        cells[-1] = [text if len(text) <= room else text[: room - 1] + "…" for text in cells[-1]]
    line = "  ".join([*(f"%-{width}s" for width in widths[:-1]), "%s"])
    sys.stdout.writelines([(line % row).rstrip() + "\n" for row in zip(*cells, strict=True)])
