"""The JSON Lines tracker: a sweep on embedded Ray, run from the command line, writes each step of each trial once."""

from __future__ import annotations

import json
from pathlib import Path

from tests.ray.support import new_project


def test_each_step_of_each_trial_is_written_once(tmp_path: Path) -> None:
    with new_project(tmp_path) as project:
        tracking = "sweep.tracking={wandb: false, jsonl: out.jsonl}"
        project.sweep("x=0,1,2", "sweep.resources.gpus=0", tracking)
        reported = project.query("SELECT trial_id, step, metrics FROM reports")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    written = [(line["trial"], line["step"], line["metrics"]) for line in lines if "step" in line]
    expected = [(trial, step, json.loads(metrics)) for trial, step, metrics in reported]
    assert len(expected) == 3 * 4
    assert sorted(written, key=lambda row: row[:2]) == sorted(expected, key=lambda row: row[:2])
    assert len({line["run"] for line in lines}) == 3
