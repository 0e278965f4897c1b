"""Which assignments a search gives, and in which order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.methods import METHODS
from orchestrator.search.random import shuffled
from orchestrator.search.space import Assignment, Axis, Interval, Key, Space

A, B, C = Key("a"), Key("b"), Key("c")


def values(assignment: Assignment) -> dict[str, object]:
    return {key.name: value for key, value in assignment}


SPACE = Space(((Axis((A,), [1, 2, 3]), Axis((B,), ["x", "y"], ((Axis((C,), [7, 8]),), ()))),))


@pytest.mark.parametrize("method", METHODS)
def test_every_assignment_of_a_finite_space_comes_once_and_in_a_fixed_order(method: str) -> None:
    asked = [values(a) for a in METHODS[method](SPACE, 0)]
    assert asked == [values(a) for a in METHODS[method](SPACE, 0)]
    assert sorted(map(str, asked)) == sorted(str(values(a)) for a in SPACE.walk())


def test_a_grid_keeps_the_order_of_the_axes_and_random_search_does_not() -> None:
    walked = [values(a) for a in SPACE.walk()]
    assert [values(a) for a in METHODS["grid"](SPACE, 0)] == walked
    orders = [[values(a) for a in METHODS["random"](SPACE, seed)] for seed in range(4)]
    assert all(order != walked for order in orders[:2])
    assert orders[0] != orders[1]


def test_random_search_draws_from_intervals() -> None:
    axes = (
        Axis((A,), Interval(1e-5, 1.0, log=True)),
        Axis((B,), Interval(2, 5, integer=True)),
        Axis((C,), Interval(-1.0, 1.0)),
        Axis((Key("d"),), Interval(1, 100, log=True, integer=True)),
    )
    drawn = [values(a) for a in itertools.islice(METHODS["random"](Space((axes,)), 3), 400)]
    assert drawn == [values(a) for a in itertools.islice(METHODS["random"](Space((axes,)), 3), 400)]
    assert all(1e-5 <= d["a"] < 1.0 and -1 <= d["c"] < 1 for d in drawn)  # type: ignore[operator]
    assert 150 < sum(d["a"] < 10**-2.5 for d in drawn) < 250  # type: ignore[operator]
    assert {d["b"] for d in drawn} == {2, 3, 4}
    assert all(type(d["d"]) is int and 1 <= d["d"] < 100 for d in drawn)


@given(st.integers(1, 500), st.integers(0, 2**40))
def test_shuffling_is_a_permutation(size: int, seed: int) -> None:
    assert sorted(shuffled(index, size, seed) for index in range(size)) == list(range(size))
