"""What a new plan does to the trials of the last one, in words."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.language.plan_changes import in_words
from orchestrator.model.rows import LastPlan
from orchestrator.model.sweep import TrialSpec
from tests.unit.manifests import sweep_spec, trial_spec

HEAD = "none of them is the same: "


def configs(*found: dict[str, Any], overrides: dict[str, Any] | None = None) -> list[TrialSpec]:
    return [trial_spec(number, config=config, overrides=overrides or {}) for number, config in enumerate(found)]


def why(before: list[TrialSpec], after: list[TrialSpec], **changes: Any) -> list[str]:
    """Why nothing of the last plan is in the new one."""
    last = LastPlan(sweep_spec(), len(before), len(before), 0, before)
    lines = in_words(last, sweep_spec(**changes), after)
    assert lines[0].startswith(f"{len(before)} trial")
    return [line.removeprefix(HEAD) for line in lines[1:]]


def test_the_keys_that_differ_are_named_with_a_way_out() -> None:
    before = configs({"id": "100", "lr": 0.1}, {"id": "100", "lr": 0.2})
    after = configs({"id": "101", "lr": 0.1}, {"id": "101", "lr": 0.2}, overrides={"lr": 0.1})
    assert why(before, after) == ["id: 100 → 101; to leave it out: sweep.ignore=[id]"]
    assert why(before, after, ignore=("paths.*",))[0].endswith("sweep.ignore=[paths.*,id]")


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1.0}}, "a.b: 1 → 1.0; to leave it out: sweep.ignore=[a.b]"),
        ({"a": 1}, {}, "a: 1 → missing; to leave it out: sweep.ignore=[a]"),
        ({"lr": 1}, {"lr": 2}, "lr: 1 → 2"),
        ({"seed": 1}, {"seed": 2}, "seed: 1 → 2"),
        (
            dict.fromkeys("abcd", 1),
            dict.fromkeys("abcd", 2),
            "a: 1 → 2, b: 1 → 2, c: 1 → 2, and 1 more keys; to leave them out: sweep.ignore=[a,b,c]",
        ),
    ],
    ids=["type", "missing", "axis", "seed", "many"],
)
def test_how_they_differ(before: dict[str, Any], after: dict[str, Any], text: str) -> None:
    assert why(configs(before), configs(after, overrides={"lr": 2})) == [text]


def test_where_something_stays_or_no_key_explains_it_nothing_is_made_up() -> None:
    before = configs({"a": 1, "b": 1}, {"a": 2, "b": 2})
    assert why(before, configs({"a": 1, "b": 2})) == []
    some = LastPlan(sweep_spec(), 2, 1, 1, before)
    assert in_words(some, sweep_spec(), configs({"a": 3})) == [
        "1 trial of the last plan (1 done) is not in this one: orchestrate trials s --all shows them; "
        "--add keeps it in the plan"
    ]
    assert in_words(LastPlan(sweep_spec(), 2, 0, 0, before), sweep_spec(), before) == []
