"""The assignments of `sweep.axes`, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.language.axes import AxisReader, Replacement
from orchestrator.search.space import Interval, Setting, Space

GROUPS = {"model": ["lstm", "gru"], "optimizer": ["SGD", "adam"], "db": ["mysql", "pg"], "db/engine": ["x", "y"]}


class FixedVocabulary:
    """A vocabulary without config folders: an option's package is the path of its group."""

    def is_group(self, path: str) -> bool:
        return path in GROUPS

    def options(self, group: str) -> Sequence[str]:
        return GROUPS[group]

    def groups(self) -> Sequence[str]:
        return [group for group in GROUPS if "/" not in group]

    def values(self, text: str, group: str | None) -> tuple[Sequence[Any] | Interval, bool]:
        parts = text.split(",")
        return (parts, True) if len(parts) > 1 else ([text], False)

    def package(self, chosen: Sequence[Setting], group: str) -> str:
        return group.replace("/", ".")

    def nested(self, chosen: Sequence[Setting], path: str) -> str:
        return path


def space(axes: Any, **replaced: Any) -> Space:
    new = {
        key.replace("__", "."): Replacement(key.replace("__", "."), "", rows, len(rows) > 1)
        for key, rows in replaced.items()
    }
    return AxisReader(FixedVocabulary(), "sweep.yaml", new).read(axes)


def walked(axes: Any, **replaced: Any) -> list[dict[str, Any]]:
    return [{key.name: value for key, value in a} for a in space(axes, **replaced).walk()]


def test_the_first_axis_varies_slowest() -> None:
    assert walked({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_without_axes_there_is_one_trial() -> None:
    assert walked({}) == [{}]
    assert walked(None) == [{}]


def test_an_option_may_have_axes_of_its_own() -> None:
    axes = {
        "optimizer": {"SGD": {"lr": [0.1, 1.0]}, "adam": {"lr, betas": [[1, [2, 3]], [4, [5, 6]]]}},
        "model": ["lstm"],
    }
    assert walked(axes) == [
        {"optimizer": "SGD", "optimizer.lr": 0.1, "model": "lstm"},
        {"optimizer": "SGD", "optimizer.lr": 1.0, "model": "lstm"},
        {"optimizer": "adam", "optimizer.lr": 1, "optimizer.betas": [2, 3], "model": "lstm"},
        {"optimizer": "adam", "optimizer.lr": 4, "optimizer.betas": [5, 6], "model": "lstm"},
    ]


def test_scopes_nest_and_a_leading_slash_means_the_root() -> None:
    axes = {"db": {"mysql": {"engine": {"x": {"size": [1, 2]}, "y": None}, "/seed": [7]}, "pg": {}}}
    assert walked(axes) == [
        {"db": "mysql", "db/engine": "x", "db.engine.size": 1, "seed": 7},
        {"db": "mysql", "db/engine": "x", "db.engine.size": 2, "seed": 7},
        {"db": "mysql", "db/engine": "y", "seed": 7},
        {"db": "pg"},
    ]


def test_a_mapping_is_short_for_dotted_keys() -> None:
    assert walked({"a": {"b": [1], "c": {"d": [2, 3]}, "e, f": [[4, 5]]}}) == [
        {"a.b": 1, "a.c.d": 2, "a.e": 4, "a.f": 5},
        {"a.b": 1, "a.c.d": 3, "a.e": 4, "a.f": 5},
    ]


def test_several_blocks_are_a_union() -> None:
    assert walked([{"a": [1, 2]}, {"b": 3}]) == [{"a": 1}, {"a": 2}, {"b": 3}]


def test_a_nested_list_is_one_value_and_null_leaves_a_group_out() -> None:
    assert walked({"a": [[1, 2], [3]]}) == [{"a": [1, 2]}, {"a": [3]}]
    assert walked({"model": [None, "lstm"]}) == [{"model": None}, {"model": "lstm"}]


def test_a_scalar_fixes_its_key() -> None:
    keys = {key.name: key.varies for key in space({"a": 1, "b": [2], "c": "x,y"}).all_keys()}
    assert keys == {"a": False, "b": True, "c": True}
    assert all(key.varies for key in space([{"a": 1}, {"a": 2}]).all_keys())


def test_the_command_line_replaces_an_axis_at_any_depth() -> None:
    axes = {"optimizer": {"SGD": {"lr": [1, 2]}, "adam": {"lr, betas": [[3, 4], [5, 6]]}}, "a": [1, 2]}
    assert walked(axes, a=[9]) == [
        {"optimizer": "SGD", "optimizer.lr": 1, "a": 9},
        {"optimizer": "SGD", "optimizer.lr": 2, "a": 9},
        {"optimizer": "adam", "optimizer.lr": 3, "optimizer.betas": 4, "a": 9},
        {"optimizer": "adam", "optimizer.lr": 5, "optimizer.betas": 6, "a": 9},
    ]
    assert walked(axes, optimizer=["adam"], a=[0])[0] == {
        "optimizer": "adam",
        "optimizer.lr": 3,
        "optimizer.betas": 4,
        "a": 0,
    }
    assert len(walked(axes, optimizer=["adam"])) == 4
    assert walked(axes, optimizer__lr=[7, 8], a=[0], optimizer=["adam"]) == [
        {"optimizer": "adam", "optimizer.betas": 4, "optimizer.lr": 7, "a": 0},
        {"optimizer": "adam", "optimizer.betas": 4, "optimizer.lr": 8, "a": 0},
        {"optimizer": "adam", "optimizer.betas": 6, "optimizer.lr": 7, "a": 0},
        {"optimizer": "adam", "optimizer.betas": 6, "optimizer.lr": 8, "a": 0},
    ]


def test_a_swept_key_of_the_command_line_is_added_to_every_block() -> None:
    assert walked([{"a": [1]}, {"b": [2]}], c=[5, 6]) == [
        {"a": 1, "c": 5},
        {"a": 1, "c": 6},
        {"b": 2, "c": 5},
        {"b": 2, "c": 6},
    ]


@pytest.mark.parametrize(
    "axes",
    [
        {"a": [1, 2], "model": {"lstm": {"x": [1, 2, 3]}, "gru": {}}, "b": [4, 5]},
        [{"a": [1, 2]}, {}, {"optimizer": {"SGD": {"x, y": [[1, 2]]}, "adam": {"z": [1, 2]}}}],
    ],
)
def test_at_and_size_agree_with_walk(axes: Any) -> None:
    found = space(axes)
    walk = list(found.walk())
    assert found.size() == len(walk)
    assert [found.at(index) for index in range(len(walk))] == walk
    with pytest.raises(IndexError):
        found.at(len(walk))


@pytest.mark.parametrize(
    "axes", [{"a": []}, {"model": {}}, {"a": {}}, {"a, b": []}, {"": [1]}, {"~a": [1]}, [3], {"a,": [[1]]}]
)
def test_axes_without_values_are_refused(axes: Any) -> None:
    with pytest.raises(ConfigError):
        space(axes)
