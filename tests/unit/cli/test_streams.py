"""A command whose output is closed, full, not read, or takes few characters: real processes, real pipes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.manifest.writer import Manifest
from tests.unit.manifests import plan, run, sweep_spec, trial_id, trial_spec

GOES_ON = """
import sys
from pathlib import Path
from orchestrator.cli import streams
with streams.opened(lasting=True):
    print("begin → …", flush=True)
    sys.stdin.readline()
    for number in range(5000):
        print("line", number, "x" * 50, flush=True)
        print("to stderr", file=sys.stderr)
    Path(sys.argv[1]).touch()
    sys.stdin.readline()
sys.exit(3)
"""


def cli(*words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "orchestrator.cli", *words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **env}, check=False)


@pytest.mark.fault(
    "output", "whoever reads the output of a sweep goes away, or stops reading", "| head, | less", "it goes on"
)
@pytest.mark.parametrize("reader", ["closes", "does not read"])
def test_a_command_that_goes_on_is_not_stopped_by_who_reads_it(tmp_path: Path, reader: str) -> None:
    out, theirs = os.pipe()
    command = [sys.executable, "-c", GOES_ON, str(tmp_path / "done")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        assert process.stdin is not None
        assert os.read(out, 100) == "begin → …\n".encode()
        if reader == "closes":
            os.close(out)
        process.stdin.write(b"\n")
        process.stdin.flush()
        while not (tmp_path / "done").exists():
            assert process.poll() is None
        process.stdin.close()
        if reader != "closes":
            with open(out, "rb") as rest:
                assert rest.read().count(b"line") == 5000, "what was not read is kept"
        assert process.wait() == 3


@pytest.mark.fault("disk", "the disk of a sweep's output is full", "sweep > file", "it goes on, and says so at the end")
def test_a_full_disk_stops_no_command_that_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", GOES_ON, str(tmp_path / "done")]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(command, input=b"", stdout=full, stderr=subprocess.PIPE, check=False)
        assert ended.returncode == 3
        last = ended.stderr.splitlines()[-1]
        assert last == b"note: not all of the output could be written: No space left on device"
        assert subprocess.run(command, input=b"", stdout=full, stderr=full, check=False).returncode == 3


def test_a_table_that_could_not_be_written_is_no_success(sweep: Manifest) -> None:
    words = [sys.executable, "-m", "orchestrator.cli", "trials", "--format", "csv", str(sweep.folder.path)]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"orchestrate: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_takes_few_characters(manifest: Manifest, encoding: str) -> None:
    """Marks are spelled out; JSON and CSV stay as they are, in UTF-8."""
    text = cli("--help", PYTHONIOENCODING=encoding)
    assert (text.returncode, text.stderr) == (0, b"")
    assert b"usage: orchestrate COMMAND ..." in text.stdout
    wrong = cli("statsu", PYTHONIOENCODING=encoding)
    assert wrong.stderr == b"orchestrate: no such command: statsu\n  -> did you mean orchestrate status?\n"
    plan(manifest, [trial_spec(0, overrides={"name": "Zoë … ✓"})], spec=sweep_spec(objective=None))
    run(manifest, 0)
    where = str(manifest.folder.path)
    shown = cli("show", f"{where}/{trial_id(0)}", "--json", PYTHONIOENCODING=encoding).stdout
    assert json.loads(shown)["overrides"] == {"name": "Zoë … ✓"}
    table = cli("trials", where, "--format", "csv", PYTHONIOENCODING=encoding).stdout.decode()
    assert "Zoë … ✓" in table
    assert b"name" in cli("trials", where, PYTHONIOENCODING=encoding).stdout


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "xterm", "COLUMNS": "0"}], ids=["dumb", "no width"])
def test_an_odd_terminal_shows_the_state(sweep: Manifest, env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "orchestrator.cli", "status", "--watch", str(sweep.folder.path)]
    ended = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, env={**os.environ, **env}, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert "2 succeeded" in shown
    assert ("\x1b" in shown) == (env["TERM"] != "dumb")
