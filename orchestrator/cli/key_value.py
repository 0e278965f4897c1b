"""KEY=VALUE on the command line of commands that read no sweep file: `trials --where`, `resubmit --set`.

A value is typed as in a sweep file. That is OmegaConf's YAML: `1e-3` is a number, though plain PyYAML reads a string,
and a date is a string. Overrides of `sweep`, `plan` and `try` are Hydra's own, and typed by Hydra.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import yaml

from orchestrator.errors import ConfigError

_FLOAT = r"""
    [-+]? \d+(?:_\d+)* \. [\d_]* (?:[eE][-+]?\d+)?    # 1. 1.5 1.5e3
  | [-+]? \d+(?:_\d+)* [eE][-+]?\d+                   # 1e3, which YAML 1.1 takes for a string
  | \. \d+(?:_\d+)* (?:[eE][-+]\d+)?                  # .5
  | [-+]? \d+(?:_\d+)* (?::[0-5]?\d)+ \. [\d_]*       # 1:30.5, base 60
  | [-+]? \.(?:inf|Inf|INF)
  | \.(?:nan|NaN|NAN)
"""


def key_value(word: str, option: str, example: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`. Raises ConfigError; `example` shows a right one."""
    key, sign, text = word.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"{word!r} is not KEY=VALUE", where=option, fix=f"{option} {example}")
    try:
        return key.strip(), typed(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{word!r}: the value is not YAML: {problem}", where=option, fix="quote it") from error


def typed(text: str) -> Any:
    """A value as the sweep file would have it. Raises yaml.YAMLError."""
    return yaml.load(text, _loader())


@cache
def _loader() -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        """PyYAML's, with more floats and without dates, as OmegaConf has it."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    floats = re.compile(f"(?:{_FLOAT})$", re.X | re.ASCII)
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", floats, list("-+0123456789."))
    return Loader
