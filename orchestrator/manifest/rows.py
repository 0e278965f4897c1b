"""From rows of SQL to the model, and values as JSON text."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.manifest.db import Row
from orchestrator.model.rows import AttemptRow, Parent, PlanRow, ReportRow, TrialRow
from orchestrator.model.sweep import Objective, Resources, Retries, Search, State, SweepSpec, TrialSpec

_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_PLAIN = frozenset({str, int, bool, type(None)})
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def dumps(value: Any) -> str:
    """JSON text that SQLite can read too: numbers that are not finite become strings."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(tagged(value), ensure_ascii=False, separators=(",", ":"))


def tagged(value: Any) -> Any:
    """The same value, with names for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, Mapping):
        return {key: tagged(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tagged(item) for item in value]
    return value


def config_text(value: Any) -> str:
    """A config as JSON that gives it back exactly: what JSON lacks is written as {"$float": …} and {"$items": …}."""
    return _encode(value if _is_json(value) else _exact(value))


def config(text: str) -> Any:
    """Undo `config_text`."""
    value = json.loads(text)
    return _original(value) if '"$' in text else value


def configs(texts: Sequence[str]) -> list[Any]:
    """Undo `config_text` for many texts: one long text is parsed faster than many short ones."""
    joined = f"[{','.join(texts)}]"
    found: list[Any] = json.loads(joined)
    return [_original(value) for value in found] if '"$' in joined else found


def many_metrics(texts: Sequence[str]) -> list[dict[str, float]]:
    """`metrics` for many texts."""
    joined = f"[{','.join(texts)}]"
    found: list[dict[str, float]] = json.loads(joined)
    return list(map(_numbers, found)) if 'NaN"' in joined or 'Infinity"' in joined else found


def _is_json(value: Any) -> bool:
    """Whether plain JSON gives the value back exactly. Nearly every config passes, and the check is 5 times faster than
    a copy.
    """
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or key[:1] == "$" or not (type(item) in _PLAIN or _is_json(item)):
                return False
        return True
    if kind is list:
        return all(map(_is_json, value))
    return kind in _PLAIN or (kind is float and math.isfinite(value))


def _exact(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": tagged(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key not in ("$float", "$items") for key in value):
            return {key: _exact(item) for key, item in value.items()}
        return {"$items": [[_exact(key), _exact(item)] for key, item in value.items()]}
    return [_exact(item) for item in value] if isinstance(value, (list, tuple)) else value


def _original(value: Any) -> Any:
    if isinstance(value, list):
        return [_original(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return _FINITE[value["$float"]]
    if "$items" in value:
        return {_original(key): _original(item) for key, item in value["$items"]}
    return {key: _original(item) for key, item in value.items()}


def metrics(text: str) -> dict[str, float]:
    """Metrics as numbers, from JSON text."""
    return _numbers(json.loads(text))


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {key: _FINITE[value] if isinstance(value, str) else value for key, value in found.items()}


def spec_text(spec: SweepSpec) -> str:
    return dumps(dataclasses.asdict(spec))


def spec(text: str) -> SweepSpec:
    data = json.loads(text)
    return SweepSpec(
        **{
            **data,
            "objective": Objective(**data["objective"]) if data["objective"] else None,
            "retries": Retries(**data["retries"]),
            "search": Search(**data["search"]),
            "exclude": tuple(data["exclude"]),
            "ignore": tuple(data["ignore"]),
            "secrets": tuple(data["secrets"]),
        }
    )


def trial_spec(row: Row) -> TrialSpec:
    """From a row of the table `trial`."""
    return TrialSpec(
        trial_id=row["trial_id"],
        config=config(row["config"]),
        overrides=config(row["overrides"]),
        seed=row["seed"],
        config_id=row["config_id"],
        references=json.loads(row["refs"]),
        resources=Resources(**json.loads(row["resources"])),
    )


def attempt(row: Row) -> AttemptRow:
    """From a row of the table `attempt` joined with its trial's `trial_id`."""
    return AttemptRow(
        trial_id=row["trial_id"],
        attempt=row["attempt"],
        purpose=row["purpose"],
        plan=row["plan"],
        state=State(row["state"]),
        lineage=row["lineage"],
        retry=bool(row["retry"]),
        cause=row["cause"],
        message=row["message"],
        traceback=row["traceback"],
        place=row["place"],
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        entered=row["entered"],
        returned=row["returned"],
        node=row["node"],
        gpus=tuple(json.loads(row["gpus"])),
        gpu_uuids=tuple(json.loads(row["gpu_uuids"])),
        pid=row["pid"],
        threads=row["threads"],
        method=row["method"],
        code=row["code"],
        restored=row["restored"],
        parent=None
        if row["parent_step"] is None
        else Parent(row["parent_trial"], row["parent_attempt"], row["parent_step"]),
        resources=row["resources"] and json.loads(row["resources"]),
        ignored=None if row["ignored"] is None else config(row["ignored"]),
        deterministic=row["deterministic"],
        metrics=metrics(row["last"]),
        objective=row["objective"],
        changed=row["changed"],
    )


def report(row: Row) -> ReportRow:
    return ReportRow(row["id"], row["trial_id"], row["attempt"], row["step"], row["time"], metrics(row["metrics"]))


def trial(row: Row) -> TrialRow:
    """From a row of the view `trials`."""
    return TrialRow(
        trial_id=row["trial_id"],
        position=row["position"],
        current=bool(row["current"]),
        state=State(row["state"]),
        cause=row["cause"],
        message=row["message"],
        place=row["place"],
        overrides=config(row["overrides"]),
        config=config(row["config"]),
        seed=row["seed"],
        config_id=row["config_id"],
        metrics=metrics(row["metrics"]),
        objective=row["objective"],
        attempts=row["attempts"],
        node=row["node"],
        gpus=tuple(json.loads(row["gpus"])),
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        code=row["code"],
        stale=bool(row["stale"]),
    )


def plan(row: Row) -> PlanRow:
    return PlanRow(
        plan=row["plan"],
        created=row["created"],
        file=row["file"],
        argv=tuple(json.loads(row["argv"])),
        spec=spec(row["spec"]),
        provenance=json.loads(row["provenance"]),
        code=row["code"],
        cwd=row["cwd"],
        total=row["total"],
        excluded=row["excluded"],
        duplicates=row["duplicates"],
        ended=row["ended"],
    )
