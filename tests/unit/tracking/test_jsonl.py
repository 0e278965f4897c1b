"""The JSON Lines file's own: what its lines say, half lines, several writers, a full disk."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import RefusedError, TrackingError
from orchestrator.ports import TrackedRun, TrackedSweep
from orchestrator.tracking.jsonl import JsonLinesTracker

AXES = {"opt.lr": 0.1}


def tracker(folder: Path, file: str = "runs.jsonl") -> JsonLinesTracker:
    return JsonLinesTracker(TrackedSweep("sums", folder / "runs" / "sums", folder, file))


def run(name: str = "a") -> TrackedRun:
    facts = {"name": "sums", "trial": f"trial-{name}", "config_id": "c", "seed": 1, "attempt": 1, "axes": AXES}
    return TrackedRun(f"run-{name}", f"trial-{name}", "lr=0.1", {"opt": {"lr": 0.1}}, facts, started=5.0)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def test_lines_say_what_a_run_is(tmp_path: Path) -> None:
    writer = tracker(tmp_path)
    assert writer.destination == str(tmp_path / "runs.jsonl")
    assert writer.start(run()) == 0
    writer.log("run-a", 0, {"loss": 1.5, "top": math.nan, "odd\udc80": 1.0}, 7.0)
    writer.finish("run-a", 255, ("superseded",))
    names = {"run": "run-a", "trial": "trial-a", "name": "lr=0.1"}
    assert lines(tmp_path) == [
        {**names, "time": 5.0, "sweep": dict(run().sweep), "config": {"opt": {"lr": 0.1}}},
        {**names, "step": 0, "time": 7.0, "metrics": {"loss": 1.5, "top": "NaN", "odd\udc80": 1.0}},
        {**names, "exit_code": 255, "tags": ["superseded"]},
    ]


def test_a_replay_adds_only_what_is_missing(tmp_path: Path) -> None:
    first = tracker(tmp_path)
    first.start(run())
    first.log("run-a", 3, {"loss": 1.0}, 1.0)
    first.finish("run-a", 0, ())
    before = lines(tmp_path)
    again = tracker(tmp_path)
    assert again.start(run()) == 4
    again.finish("run-a", 0, ())
    assert lines(tmp_path) == before
    assert again.start(run()) == 4
    again.log("run-a", 4, {"loss": 1.0}, 2.0)
    again.finish("run-a", 0, ())
    assert [line.get("step") for line in lines(tmp_path)] == [None, 3, None, 4, None]


@pytest.mark.parametrize("kept", [1, 20])
def test_half_a_line_is_cut(tmp_path: Path, kept: int) -> None:
    first = tracker(tmp_path)
    first.start(run())
    first.log("run-a", 0, {"loss": 1.0}, 1.0)
    file = tmp_path / "runs.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole.splitlines()[-1][:kept])  # by a writer that was killed
    assert tracker(tmp_path).start(run()) == 1
    assert file.read_bytes() == whole


def test_somebody_elses_file_is_not_cut(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text('[1]\n{"run": []}\nnot ours\n')
    assert tracker(tmp_path).start(run()) == 0  # whole lines do no harm
    file.write_text("import this")
    with pytest.raises(RefusedError, match="half a line that is not ours"):
        tracker(tmp_path).start(run())
    assert file.read_text() == "import this"


WRITER = """
import sys
from pathlib import Path
from tests.unit.tracking.test_jsonl import run, tracker
name = sys.argv[2]
writer = tracker(Path(sys.argv[1]))
assert sys.stdin.readline()
writer.start(run(name))
for step in range(300):
    writer.log(f"run-{name}", step, {"loss": float(step)}, 0.0)
writer.finish(f"run-{name}", 0, ())
"""


def test_several_sweeps_write_to_one_file(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
        )
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    for name in "ab":
        own = [line for line in lines(tmp_path) if line["run"] == f"run-{name}"]
        assert [line.get("step") for line in own] == [None, *range(300), None]


def test_a_file_that_was_removed_gets_the_open_runs_anew(tmp_path: Path) -> None:
    writer = tracker(tmp_path)
    writer.start(run())
    writer.log("run-a", 0, {"loss": 1.0}, 1.0)
    (tmp_path / "runs.jsonl").unlink()
    with pytest.raises(TrackingError, match="removed or replaced"):
        writer.log("run-a", 1, {"loss": 1.0}, 1.0)
    assert writer.start(run()) == 0


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    writer = tracker(tmp_path)
    writer.start(run())
    before = lines(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "runs.jsonl").stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(TrackingError, match="cannot write: File too large"):
            writer.log("run-a", 0, {"loss": 1.0}, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.start(run()) == 0
    assert lines(tmp_path) == before
    with pytest.raises(TrackingError, match="No space left"):
        tracker(tmp_path, "/dev/full").start(run())
