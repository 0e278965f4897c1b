"""What an order takes over from the sweep file, and what it says by itself."""

from __future__ import annotations

import pickle

import pytest

from orchestrator.model.order import Order
from orchestrator.model.sweep import Objective
from orchestrator.model.trainer import Function, parse
from tests.unit.manifests import sweep_spec, trial_id, trial_spec


@pytest.mark.parametrize(
    ("text", "module", "name"),
    [("train:train", "train", "train"), ("a.b:Model.fit", "a.b", "Model.fit"), ("good:", "good", "")],
)
def test_a_trainer_is_read_from_its_text_and_written_as_it_was(text: str, module: str, name: str) -> None:
    assert parse(text) == Function(module, name)
    assert str(parse(text)) == text


def test_an_order_says_what_the_sweep_file_says() -> None:
    sweep = sweep_spec(objective=Objective("f1", "max"), start="spawn", grace=3.0, timeout=60.0, heartbeat=5.0)
    order = Order.of(sweep, trial_spec(4, references={"now": "${now:%Y}"}))
    assert (order.trial_id, order.config, order.seed) == (trial_id(4), {"x": 4, "model": {"size": 40}}, 1)
    assert (order.trainer, order.references) == (Function("train", "train"), {"now": "${now:%Y}"})
    assert (order.start, order.deterministic, order.returned) == ("spawn", "warn", "f1")
    assert (order.grace, order.timeout, order.heartbeat) == (3.0, 60.0, 5.0)
    assert pickle.loads(pickle.dumps(order)) == order


def test_a_number_that_a_trainer_returns_has_a_name_where_the_sweep_has_no_objective() -> None:
    assert Order.of(sweep_spec(objective=None), trial_spec(0)).returned == "objective"
