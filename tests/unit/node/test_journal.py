"""The journal: what a trial writes is read once, and what could not be written completely is left out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from orchestrator.model.events import Noticed, Reported
from orchestrator.node.inside.run import Run
from orchestrator.node.shared.journal import JournalReader, JournalWriter
from orchestrator.node.shared.trial_paths import TrialPaths
from tests.unit.node.support import file_size_limit, order


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[BinaryIO]:
    with (tmp_path / "journal").open("a+b") as file:
        yield file


def test_consecutive_reports_are_one_event(tmp_path: Path, journal: BinaryIO) -> None:
    run = Run(order(tmp_path, "nothing"), JournalWriter(journal.fileno()), TrialPaths(str(tmp_path), shared=True))
    for step in range(3):
        run.report({"loss": math.pi}, step=step)
    entries = JournalReader(journal.fileno()).read()
    assert entries is not None
    assert len(entries) == 1


def test_a_line_is_read_once_it_is_complete(journal: BinaryIO) -> None:
    reader = JournalReader(journal.fileno())
    os.write(journal.fileno(), b'N\t"on')
    assert reader.read() is None
    os.write(journal.fileno(), b'e"\n')
    assert reader.read() == [Noticed("one")]
    assert reader.read() is None


@pytest.mark.parametrize("room", range(60))
def test_lines_that_a_full_disk_cuts_are_left_out(journal: BinaryIO, room: int) -> None:
    """Wherever they are cut: a report without its end, or half of a number, must not be taken for a whole one."""
    writer = JournalWriter(journal.fileno())
    writer.notice("before")
    with file_size_limit(os.fstat(journal.fileno()).st_size + room):
        writer.report(1, '{"a}":1,"b}":2,"ccccccccccccccccccccccccccccccccccccc":3}')
        writer.report(2, "{}")
        writer.entered()
    writer.report(3, '{"loss":4}')
    entries = JournalReader(journal.fileno()).read()
    assert entries is not None
    assert entries[0] == Noticed("before")
    (reported,) = entries[1:]
    assert isinstance(reported, Reported)
    assert [(step, text) for step, _, text in reported.rows] == [(3, '{"loss":4}')]
