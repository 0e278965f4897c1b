"""Which trials have the same id."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.language.identity import IdSet, Placeholder, canonical, digest, identity_text, key_matcher, trial_id

NO_NAN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
DATA = st.recursive(
    NO_NAN,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.booleans(), inner),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    """The same data with the keys of mappings in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def typed(value: Any) -> Any:
    """A form in which Python's equality tells types apart."""
    if isinstance(value, dict):
        return ("map", frozenset((typed(key), typed(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("list", tuple(map(typed, value)))
    return (type(value).__name__, value)


def test_known_ids() -> None:
    assert trial_id("a:b", {"x": 1e-3, "y": [1, 1.0, True, None]}) == trial_id(
        "a:b", {"y": [1, 1.0, True, None], "x": 0.001}
    )
    assert canonical({"b": [1, 1.0, True], "a": "é"}) == '{"a":"é","b":[1,1.0,true]}'
    assert digest("x") == "2d711642b726"


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, False), ("1", 1), (None, "null"), ([], {})])
def test_the_type_of_a_value_changes_the_id(one: Any, other: Any) -> None:
    assert trial_id("a:b", {"x": one}) != trial_id("a:b", {"x": other})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0, "0.0"),
        (float("nan"), '{"$float":"nan"}'),
        (float("-inf"), '{"$float":"-inf"}'),
        ({1: "a"}, '{"$map":[[1,"a"]]}'),
        ({"$float": "nan"}, '{"$map":[["$float","nan"]]}'),
        ("\ud800", '"\ud800"'),
    ],
)
def test_values_that_json_lacks_are_tagged(value: Any, text: str) -> None:
    assert canonical(value) == text
    assert re.fullmatch("[0-9a-f]{12}", digest(text))


@given(DATA)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical(value) == canonical(shuffled(value))


@given(DATA, DATA)
def test_canonical_json_is_equal_only_for_equal_data(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


@given(st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), NO_NAN))
def test_canonical_json_of_simple_data_is_json(value: Any) -> None:
    finite = {k: v for k, v in value.items() if not isinstance(v, float) or abs(v) != float("inf")}
    assert json.loads(canonical(finite)) == finite


def test_the_trainer_changes_the_id_and_omitted_keys_do_not() -> None:
    config = {"a": {"b": 1, "num_workers": 2}, "paths": {"out": "x"}, "items": [1, 2]}
    without = {"a": {"b": 1}, "items": [1, 2]}
    ignore = ("paths.*", "*.num_workers")
    assert trial_id("a:b", config, ignore=ignore) == trial_id("a:b", without)
    assert trial_id("a:b", config) != trial_id("a:b", without)
    assert trial_id("a:b", without) != trial_id("a:c", without)
    assert trial_id("a:b", {"x": {"y": 1}}, omit=["x.y"]) == trial_id("a:b", {})
    assert trial_id("a:b", config, omit=["items.0"]) != trial_id("a:b", config, omit=["items.1"])


def test_placeholders_can_be_filled_in_the_text() -> None:
    text = identity_text("a:b", {"x": Placeholder(0), "y": [Placeholder(1)]}, key_matcher(()))
    parts = text.split("\x00")
    parts[1], parts[3] = canonical(0.5), canonical("z")
    assert "".join(parts) == identity_text("a:b", {"x": 0.5, "y": ["z"]}, key_matcher(()))


def test_an_id_set_behaves_like_a_set() -> None:
    rng = random.Random(0)
    ids = [f"{rng.randrange(3000):012x}" for _ in range(4000)] + ["0" * 12, "f" * 12]
    known: set[str] = set()
    compact = IdSet()
    for one in ids:
        assert compact.add(one) == (one not in known)
        known.add(one)
    assert len(compact) == len(known)
