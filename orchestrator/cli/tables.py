"""Many trials on the terminal: as a table, as CSV, as JSON lines."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterable, Sequence

from orchestrator.cli.streams import for_programs

_LEAST = 16  # characters of a last column that is cut


def print_json(lines: Iterable[str]) -> None:
    """One object a line."""
    for_programs()
    sys.stdout.writelines(lines)


def print_csv(names: Sequence[str], columns: Sequence[Sequence[str]]) -> None:
    for_programs()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))


def fitting(titles: Sequence[str], columns: Sequence[Sequence[str]], optional: Sequence[int]) -> list[int]:
    """The columns to print, by position: on a narrow terminal without the last of those that are optional.

    A last column that is not optional is cut in a table, so little of it has to fit.
    """
    widths = [max(map(len, [title, *column])) for title, column in zip(titles, columns, strict=True)]
    if len(titles) - 1 not in optional:
        widths[-1] = min(widths[-1], _LEAST)
    kept, room = list(range(len(titles))), shutil.get_terminal_size().columns
    for position in reversed(optional if sys.stdout.isatty() else ()):
        if sum(widths[each] for each in kept) + 2 * (len(kept) - 1) > room:
            kept.remove(position)
    return kept


def print_table(titles: Sequence[str], columns: Sequence[Sequence[str]]) -> None:
    """Print an aligned table. On a terminal, the last column is cut at the right edge."""
    cells = [[title, *column] for title, column in zip(titles, columns, strict=True)]
    widths = [max(map(len, column)) for column in cells]
    room = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * len(widths[:-1]) if sys.stdout.isatty() else 0
    if room > 0:
        cells[-1] = [text if len(text) <= room else text[: room - 1] + "…" for text in cells[-1]]
    line = "  ".join([*(f"%-{width}s" for width in widths[:-1]), "%s"])
    sys.stdout.writelines([(line % row).rstrip() + "\n" for row in zip(*cells, strict=True)])
