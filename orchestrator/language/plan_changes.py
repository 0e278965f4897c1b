"""What a new plan does to the trials of the last one, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator import naming
from orchestrator.language.identity import canonical, key_matcher
from orchestrator.language.references import dotted, leaves
from orchestrator.model.rows import LastPlan
from orchestrator.model.sweep import SweepSpec, TrialSpec

SAMPLE = 1000  # trials of each plan whose configs are compared
_SHOWN_KEYS, _SHOWN_VALUES = 3, 3
_ABSENT = object()


def in_words(last: LastPlan, spec: SweepSpec, new: Sequence[TrialSpec]) -> list[str]:
    """What leaves the plan, and why, if nothing stays. `new`: trials of the new plan."""
    if not last.leaving:
        return []
    what = f"{naming.count(last.leaving, 'trial')} of the last plan ({last.done} done)"
    are = "are" if last.leaving != 1 else "is"
    shown = f"orchestrate trials {spec.name} --all shows them"
    kept = f"; --add keeps {'them' if last.leaving != 1 else 'it'} in the plan"
    if last.spec.trainer != spec.trainer:
        kept = f"; they are of another trainer, {last.spec.trainer} (sweep.name=… starts a sweep of its own)"
    lines = [f"{what} {are} not in this one: {shown}{kept}"]
    if last.leaving == last.trials and last.spec.trainer == spec.trainer:
        lines += _differing_keys(last.sample, new, spec)
    return lines


def _differing_keys(before: Sequence[TrialSpec], after: Sequence[TrialSpec], spec: SweepSpec) -> list[str]:
    """The keys that have no value in common."""
    ignored = key_matcher(spec.ignore)
    old, new = _values(before), _values(after)
    differing = [
        key
        for key in dict.fromkeys([*new, *old])
        if not any(ignored(part) for part in _with_parents(key))
        and not _of(old, key, before).keys() & _of(new, key, after).keys()
    ]
    if not differing:
        return []
    swept = {key for trial in after for key in trial.overrides}
    differing.sort(key=lambda key: key in swept)
    texts = [f"{key}: {_change(_of(old, key, before), _of(new, key, after))}" for key in differing[:_SHOWN_KEYS]]
    more = f", and {len(differing) - _SHOWN_KEYS} more keys" if len(differing) > _SHOWN_KEYS else ""
    fixed = [key for key in differing[:_SHOWN_KEYS] if key not in swept and key != spec.seed]
    out = f"; to leave {'it' if len(fixed) == 1 else 'them'} out: sweep.ignore=[{','.join([*spec.ignore, *fixed])}]"
    return [f"none of them is the same: {', '.join(texts)}{more}{out if fixed else ''}"]


def _values(trials: Iterable[TrialSpec]) -> dict[str, dict[str, Any]]:
    """Of each key, its values in these trials, by their canonical text. References are no part of a trial."""
    found: dict[str, dict[str, Any]] = {}
    for trial in trials:
        for path, value in leaves(trial.config):
            key = dotted(path)
            if key not in trial.references:
                found.setdefault(key, {}).setdefault(canonical(value), value)
    return found


def _of(values: Mapping[str, dict[str, Any]], key: str, trials: Sequence[TrialSpec]) -> dict[str, Any]:
    return values.get(key) or ({"": _ABSENT} if trials else {})


def _change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Values by their canonical text, which is shown where 1 and 1.0 would look alike."""
    short = [_listed(map(_short, each.values())) for each in (old, new)]
    return " → ".join(short if short[0] != short[1] else map(_listed, (old, new)))


def _short(value: Any) -> str:
    return "missing" if value is _ABSENT else naming.value(value)


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    return ", ".join(found[:_SHOWN_VALUES]) + (", …" if len(found) > _SHOWN_VALUES else "")


def _with_parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
