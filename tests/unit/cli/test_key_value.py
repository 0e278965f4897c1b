"""KEY=VALUE is typed as the sweep file would type it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf._utils import get_yaml_loader

from orchestrator.cli.key_value import key_value, typed
from orchestrator.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1e-3", 0.001),
        ("1.5E+2", 150.0),
        ("1_000", 1000),
        (".5", 0.5),
        (".inf", math.inf),
        ("true", True),
        ("off", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        ("None", "None"),
        ("adam", "adam"),
        ("2026-11-25", "2026-11-25"),
        ("010", 8),
        ("'1'", "1"),
        ('"a b"', "a b"),
        ("[0.9, 0.999]", [0.9, 0.999]),
        ("{a: 1}", {"a": 1}),
        ("a=b", "a=b"),
        ("valid/loss", "valid/loss"),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = key_value(f"key={text}", "--where", "key=1")
    assert (found, type(found[1])) == (("key", value), type(value))


def read(text: str, load: Any) -> Any:
    """A value with its type, or that it is no YAML; NaN equals NaN."""
    try:
        return repr(load(text))
    except yaml.YAMLError:
        return None


ATOMS = st.text("0123456789.eE+-_:xob", max_size=8) | st.sampled_from(
    ["yes", "No", "NULL", "nan", ".NaN", "-.INF", "0x1F"]
)


@given(ATOMS | st.text("abn~,[]{}\"' #&*!|>%@`=/", max_size=8))
@example("1e3")
@example("1.e3")
@example("1:30.5")
@example("0b1")
@example("0_.")
@example("1_.5")
def test_it_is_what_a_sweep_file_says(text: str) -> None:
    assert read(text, typed) == read(text, lambda value: yaml.load(value, get_yaml_loader()))


@pytest.mark.parametrize("word", ["lr", "=1", " =1", "", "lr=[1"])
def test_what_is_no_setting_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="--where") as told:
        key_value(word, "--where", "optimizer=adam")
    assert "\n  → " in str(told.value)
