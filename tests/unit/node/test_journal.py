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
from orchestrator.node.shared import memory_file
from orchestrator.node.shared.journal import JournalReader, JournalWriter, Unwritten
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
    unwritten, reported = entries[1:]
    assert isinstance(unwritten, Unwritten)
    assert unwritten.lines in (2, 3), "the shortest may have had room"
    assert isinstance(reported, Reported)
    assert [(step, text) for step, _, text in reported.rows] == [(3, '{"loss":4}')]


def test_rows_that_could_not_be_written_are_counted(journal: BinaryIO) -> None:
    writer, reader = JournalWriter(journal.fileno()), JournalReader(journal.fileno())
    for _ in range(2):
        with file_size_limit(os.fstat(journal.fileno()).st_size):
            for step in range(5):
                writer.report(step, "{}")
        writer.report(5, "{}")
    entries = reader.read()
    assert entries is not None
    told = [entry for entry in entries if isinstance(entry, Unwritten)]
    assert told == [Unwritten(os.getpid(), lines, "File too large") for lines in (5, 10)]
    assert sum(len(entry.rows) for entry in entries if isinstance(entry, Reported)) == 2


def test_reports_that_nobody_reads_do_not_fill_the_memory() -> None:
    fd = memory_file.create("journal")
    try:
        writer, reader = JournalWriter(fd, backlog=2**22), JournalReader(fd)
        text = '{"loss":%s}' % ("1" * 10_000)

        def read() -> tuple[int, int]:
            found = [entry for entries in iter(reader.read, None) for entry in entries]
            rows = sum(len(entry.rows) for entry in found if isinstance(entry, Reported))
            return rows, max((entry.lines for entry in found if isinstance(entry, Unwritten)), default=0)

        for step in range(1000):
            writer.report(step, text)
        assert memory_file.size_in_memory(fd) < 6 * 2**20
        kept, _ = read()
        for step in range(10):
            writer.report(step, text)
        more, lost = read()
        assert more == 10
        assert 300 < kept < 600
        assert lost == 1000 - kept
    finally:
        os.close(fd)


def test_what_has_been_read_is_freed() -> None:
    fd = memory_file.create("journal")
    try:
        writer, reader = JournalWriter(fd), JournalReader(fd)
        rows = 0
        for _ in range(8):
            for step in range(1000):
                writer.report(step, '{"loss":%s}' % ("1" * 1000))
            while (entries := reader.read()) is not None:
                rows += sum(len(entry.rows) for entry in entries if isinstance(entry, Reported))
        assert rows == 8000
        assert os.fstat(fd).st_size > 8_000_000
        assert memory_file.size_in_memory(fd) < 3_000_000
    finally:
        os.close(fd)
