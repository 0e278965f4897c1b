"""Status, its JSON, the list of trials and the end of a sweep name the same winner, whatever happened."""

from __future__ import annotations

import csv
import io
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.cli import view
from orchestrator.cli.main import main
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import Objective, State
from orchestrator.results.snapshot import read_snapshot
from tests.unit import manifests
from tests.unit.manifests import FAILURE, LOST, SUCCESS, begin, end, plan, report, sweep_spec, trial_id, trial_spec

VALUE = st.one_of(st.just("NaN"), st.integers(0, 5).map(float))
ROW = st.tuples(st.integers(0, 3), st.dictionaries(st.sampled_from(["loss", "test"]), VALUE, min_size=1))
ENDS = st.sampled_from([SUCCESS, SUCCESS, SUCCESS, FAILURE, LOST, Outcome(State.CANCELLED, "cancelled"), None])
TRIAL = st.tuples(st.lists(ROW, max_size=4), ENDS)


def best_value(rows: list[tuple[int, dict[str, Any]]], objective: Objective) -> float | None:
    """The objective of a series, said in the plainest way."""
    steps: dict[int, Any] = {}
    for step, row in rows:
        if "loss" in row:
            steps[step] = row["loss"]
    if objective.at == "last":
        given_ = [row["loss"] for _, row in rows if "loss" in row]
        return given_[-1] if given_ and given_[-1] != "NaN" else None
    finite = [value for value in steps.values() if value != "NaN"]
    return (max if objective.mode == "max" else min)(finite, default=None)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trials=st.lists(TRIAL, min_size=1, max_size=6),
    repeats=st.sampled_from([1, 2, 3]),
    mode=st.sampled_from(["min", "max"]),
    at=st.sampled_from(["last", "best"]),
)
def test_the_winner_is_the_same_everywhere(
    trials: list[tuple[Any, Any]], repeats: int, mode: Any, at: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = Objective("loss", mode, at)
    specs = [
        trial_spec(number, config_id=f"{number // repeats:012}", seed=number % repeats,
                   overrides={"x": number // repeats, "seed": number % repeats})
        for number in range(len(trials))
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(dir=manifests.quick()) as folder:
        with closing(Manifest.open(manifests.create(Path(folder)))) as manifest:
            plan(manifest, specs, spec=sweep_spec(objective=objective, repeats=repeats))
            for number, (rows, outcome) in enumerate(trials):
                key = begin(manifest, number)
                for step, row in rows:
                    report(manifest, key, 1, step, **row)
                if outcome is not None:
                    end(manifest, key, 1, outcome)
        with Reader(manifest.folder) as reader:
            snap = read_snapshot(manifest.folder, reader)
            values = {row.trial_id: row.objective for row in reader.trials()}
        assert values == {trial_id(n): best_value(rows, objective) for n, (rows, _) in enumerate(trials)}

        def output(*words: str) -> str:
            capsys.readouterr()
            assert main([*words, "--runs", folder]) == 0
            return capsys.readouterr().out

        told = snap.as_json()["best"]
        first = next(csv.DictReader(io.StringIO(output("trials", "s", "--format", "csv"))))
        by_config = next(csv.DictReader(io.StringIO(output("trials", "s", "--by", "config", "--format", "csv"))))
        assert by_config["best_trial"] == first["trial_id"]
        assert output("trials", "s", "--sort", "objective") == output("trials", "s")
        if told is None:
            assert not any("best: " in line for line in view.results(snap))
            return
        assert first["trial_id"] == told["trial_id"]
        assert first[f"loss ({at})"] == repr(told["objective"])
        assert (told["trial_id"][:8] in output("status", "s").partition("best: ")[2].splitlines()[0]) is True
        assert told["trial_id"][:8] in next(line for line in view.results(snap) if line.startswith("best: "))
