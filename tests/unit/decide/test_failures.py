"""Which failures are similar, and which settings distinguish their trials from the others."""

from __future__ import annotations

import pytest

from orchestrator.decide.failures import Failed, Fingerprint, difference, grouped


@pytest.mark.parametrize(
    ("cause", "message", "place", "error"),
    [
        ("exception", "KeyError: 'lr'", "train.py:88", "KeyError"),
        ("exception", "StopIteration", "train.py:88", "StopIteration"),
        ("exception", "ValueError: a: b", "", "ValueError"),
        ("oom", "MemoryError: 5 GB", "train.py:9", "MemoryError"),
        ("oom", "its processes held 5.1 GiB: too much", "", ""),
        ("signal", "killed by SIGSEGV: at 0x7f", "", "killed by SIGSEGV"),
        ("exit", "the process ended with exit code 3", "", "the process ended with exit code 3"),
        ("timeout", "ran for 2h, which is sweep.timeout", "", ""),
        ("hang", "no report for 5m, after 2h in all", "train.py:88", ""),
        ("lost_node", "node 3f: went away", "", ""),
    ],
)
def test_a_fingerprint_does_not_depend_on_values(cause: str, message: str, place: str, error: str) -> None:
    assert Failed("a", cause, message, place).fingerprint == Fingerprint(cause, error, place)


def test_failures_are_grouped_by_fingerprint() -> None:
    failed = [
        Failed("a", "exception", "KeyError: 'x'", "train.py:7"),
        Failed("b", "exception", "KeyError: 'lr'", "train.py:88"),
        Failed("c", "exception", "KeyError: 'wd'", "train.py:88"),
        Failed("d", "exception", "KeyError: 'wd'", "train.py:88"),
        Failed("e", "exception", "ValueError: no", "train.py:88"),
        Failed("f", "timeout", "", ""),
    ]
    groups = grouped(failed)
    assert [group.trials for group in groups] == [("b", "c", "d"), ("a",), ("e",), ("f",)]
    assert (groups[0].line, groups[0].example) == ("train.py:88: KeyError: 'wd'", "c")
    assert groups[-1].line == "timeout"
    assert grouped([]) == []


SGD, ADAM = {"optimizer": "SGD"}, {"optimizer": "adam"}


def test_settings_that_all_members_share_and_the_others_lack() -> None:
    members = [{**SGD, "lr": 0.1, "x": [1]}, {**SGD, "lr": 0.2, "x": [1]}]
    assert difference(members, [{**ADAM, "lr": 0.1, "x": [1]}, {**ADAM, "lr": 0.3, "x": [2]}]) == [
        ("optimizer", "SGD", 2),
        ("x", [1], 2),
    ]


def test_the_most_common_setting_if_members_share_none() -> None:
    assert difference([SGD, SGD, ADAM], [ADAM, ADAM]) == [("optimizer", "SGD", 2)]


def test_no_difference() -> None:
    assert difference([SGD], []) == []
    assert difference([SGD], [SGD]) == []
    assert difference([{}], [SGD]) == []
