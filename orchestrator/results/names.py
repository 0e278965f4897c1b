"""The names of the columns of the list of trials: as a person reads them, and as a person types them.

A name belongs to one column. Where a setting, a metric or a fixed column would have the same, the setting is called
`setting:NAME` and the metric `metric:NAME`; these names are always understood.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from orchestrator import naming
from orchestrator.errors import ConfigError
from orchestrator.manifest.query import At, Column
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import Objective

FIXED = ("trial_id", "state", "cause", "attempts", "objective", "node", "seconds", "message")
OBJECTIVE = Column("objective", "objective")
_TITLES = {"trial_id": "trial"}
_PREFIXES = ("setting:", "metric:")
_NEAR = 3


class Names:
    """Names for these settings and metrics."""

    def __init__(
        self,
        settings: Iterable[str],
        metrics: Iterable[str],
        objective: Objective | None = None,
        at: At | None = None,
        exists: Callable[[str], bool] = lambda key: False,
        others: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """`exists` says whether a config has a dotted key; `others` gives further keys, to guess what was meant."""
        self.settings, self.metrics = dict.fromkeys(settings), dict.fromkeys(metrics)
        self._objective, self._exists, self._others = objective, exists, others
        self._taken = set(FIXED) - ({"objective"} if objective is None else set()) | set(_TITLES.values())
        if objective is not None:
            self._objective_title = f"{objective.metric} ({at or objective.at})"
            self._taken.add(self._objective_title)
        self._short = self._shortened(self.settings)

    @classmethod
    def of(cls, reader: Reader, objective: Objective | None, at: At | None = None, everything: bool = False) -> Names:
        """The names of what the trials of the current plan have, or those of all plans."""
        return cls(
            reader.setting_names(everything),
            reader.metric_names(everything),
            objective,
            at,
            reader.has_setting,
            lambda: _keys_of_a_config(reader),
        )

    def _shortened(self, settings: Iterable[str]) -> dict[str, str]:
        """A short title for each setting; its whole key where the short one is taken."""
        short = naming.short_keys(settings)
        return {
            key: self.name(Column("setting", key)) if name in self._taken or name in self.metrics else name
            for key, name in short.items()
        }

    def name(self, column: Column) -> str:
        """The full name of a column, as CSV has it."""
        if column.kind == "fixed":
            return column.name
        if column.kind == "objective":
            return self._objective_title
        other = self.metrics if column.kind == "setting" else self.settings
        clash = column.name in self._taken or column.name in other or column.name.startswith(_PREFIXES)
        return f"{column.kind}:{column.name}" if clash else column.name

    def title(self, column: Column) -> str:
        """The short name of a column, as a table has it."""
        if column.kind == "setting":
            return self._short.get(column.name) or self.name(column)
        return _TITLES.get(column.name, column.name) if column.kind == "fixed" else self.name(column)

    def find(self, word: str, option: str) -> Column:
        """The column with this name. Raises ConfigError."""
        if word in FIXED and word in self._taken:
            return OBJECTIVE if word == "objective" else Column("fixed", word)
        if word in self._taken:
            return Column("fixed", "trial_id") if word in _TITLES.values() else OBJECTIVE
        for column in (Column("setting", word.partition(":")[2]), Column("metric", word.partition(":")[2])):
            if word.startswith(f"{column.kind}:") and self._known(column):
                return column
        found = [Column("setting", word)] if word in self.settings else []
        found += [Column("metric", word)] if word in self.metrics else []
        found = found or [Column("setting", key) for key, short in self._short.items() if short == word]
        if not found and self._exists(word):
            found = [Column("setting", word)]
        if not found:
            raise self._unknown(word, option)
        if len(found) > 1:
            names = " or ".join(map(self.name, found))
            raise ConfigError(f"{word!r} is a setting and a metric", where=option, fix=f"write {names}")
        return found[0]

    def _known(self, column: Column) -> bool:
        if column.kind == "metric":
            return column.name in self.metrics
        return column.name in self.settings or self._exists(column.name)

    def _unknown(self, word: str, option: str) -> ConfigError:
        fixed = [name for name in FIXED if name in self._taken]
        shown = [*fixed, *self._short.values(), *map(self.name, (Column("metric", name) for name in self.metrics))]
        known = dict.fromkeys([*shown, *self.settings, *self._others()])
        near = difflib.get_close_matches(word, list(known), n=_NEAR, cutoff=0.5)
        near += [name for name in known if name.endswith(f".{word}") and name not in near][:_NEAR]
        fix = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(dict.fromkeys(shown))}"
        return ConfigError(f"no trial has {word!r}", where=option, fix=fix)


def _keys_of_a_config(reader: Reader) -> Iterator[str]:
    trial = reader.example()
    if trial is not None:
        yield from trial.choices
        yield from _dotted(trial.config)


def _dotted(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
