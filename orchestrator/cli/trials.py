"""`orchestrate trials`: the trials as a table, CSV or JSON lines."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator import naming
from orchestrator.cli.common import Parser, find_sweep, literal, positive, print_json
from orchestrator.errors import ConfigError, OrchestratorError, nearest
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.rows import dumps
from orchestrator.model import Objective, State, TrialRow

FIXED = ("trial_id", "state", "cause", "attempts", "objective", "node", "seconds", "message")
MISSING = object()


def parser() -> Parser:
    options = Parser("trials", "[SWEEP] [options]", "The trials of a sweep, compared.")
    options.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    options.add_argument("--state", metavar="S", help="only trials in this state, as `failed`")
    options.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only trials with this setting"
    )
    options.add_argument("--sort", metavar="METRIC", help="best first by the objective, else growing; -METRIC turns it")
    options.add_argument("--columns", metavar="A,B", help=f"settings, metrics, or {', '.join(FIXED)}")
    options.add_argument("--limit", type=positive, metavar="N", help="the first N")
    options.add_argument("--all", action="store_true", help="trials of earlier plans too")
    options.add_argument("--format", choices=["table", "csv", "json"], default="table")
    options.add_argument("--json", action="store_const", const="json", dest="format", help="one JSON object a line")
    return options


def run(words: Sequence[str]) -> int:
    options = parser().read(_guard_minus(words))
    with Reader(find_sweep(options)) as reader:
        plan = reader.plan()
        objective = plan.spec.objective if plan else None
        metric, descending = _order(options.sort, objective)
        if metric:
            _check_metric(reader, metric)
        rows = reader.trials(
            state=_state(options.state),
            where=dict(_condition(text) for text in options.where),
            sort=metric,
            descending=descending,
            limit=options.limit,
            everything=options.all,
        )
        if options.format == "json":
            for row in rows:
                print_json(as_json(row))
            return 0
        columns = options.columns.split(",") if options.columns else None
        _print(list(rows), columns, metric, objective, options.format)
    return 0


def as_json(row: TrialRow) -> dict[str, Any]:
    """The stable form of a trial for scripts."""
    return {
        "trial_id": row.trial_id,
        "state": row.state.value,
        "cause": row.cause or None,
        "overrides": row.overrides,
        "config": row.config,
        "metrics": row.metrics,
        "attempts": row.attempts,
        "objective": row.objective,
        "message": row.message or None,
        "stale": row.stale,
        "seed": row.seed,
    }


def _guard_minus(words: Sequence[str]) -> list[str]:
    """`--sort -loss`: argparse would take the value for an option."""
    joined, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        joined.append(f"--sort={rest.pop(0)}" if word == "--sort" and rest else word)
    return joined


def _order(sort: str | None, objective: Objective | None) -> tuple[str | None, bool]:
    """(metric, descending): the objective with its best first, any other growing; a leading minus turns it."""
    if sort is None:
        return None, False
    metric = sort.removeprefix("-")
    descending = objective is not None and metric == objective.metric and objective.mode == "max"
    return metric, descending != sort.startswith("-")


def _check_metric(reader: Reader, metric: str) -> None:
    known = reader.metric_names()
    if known and metric not in known:
        near = nearest(metric, known)
        fix = f"did you mean {near}?" if near else f"reported are: {', '.join(sorted(known)[:12])}"
        raise ConfigError(f"no trial reports a metric {metric!r}", where="--sort", fix=fix)


def _state(name: str | None) -> State | None:
    if name is None:
        return None
    try:
        return State(name.upper())
    except ValueError:
        known = [state.value.lower() for state in State]
        near = nearest(name.lower(), known)
        raise ConfigError(
            f"no such state: {name}", where="--state", fix=f"did you mean {near}?" if near else ", ".join(known)
        ) from None


def _condition(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise OrchestratorError(f"{text!r} is not KEY=VALUE", where="--where", fix="--where optimizer=adam")
    return key, literal(value)


def _print(
    rows: Sequence[TrialRow],
    columns: Sequence[str] | None,
    metric: str | None,
    objective: Objective | None,
    form: str,
) -> None:
    names = list(columns) if columns else _columns(rows, metric, objective)
    _check_columns(rows, names)
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(row, name, exact=True) for name in names] for row in rows)
        return
    if not rows:
        print("no trial matches")
        return
    short = {**naming.short_keys([name for name in names if name not in FIXED and not _is_metric(rows, name)])}
    titles = [short.get(name, "trial" if name == "trial_id" else name) for name in names]
    _table(titles, [[_cell(row, name, exact=False) for name in names] for row in rows])


def _columns(rows: Sequence[TrialRow], metric: str | None, objective: Objective | None) -> list[str]:
    """What varies, the objective, and the metrics of the first rows."""
    settings = list(dict.fromkeys(key for row in rows for key in row.overrides))
    metrics = list(dict.fromkeys(key for row in rows[:50] for key in row.metrics))
    first = [name for name in (metric, objective.metric if objective else None) if name in metrics]
    shown = list(dict.fromkeys([*first, *metrics]))[:4]
    extra = ["message"] if any(row.message for row in rows) else []
    return ["trial_id", "state", *settings, *[name for name in shown if name], *extra]


def _check_columns(rows: Sequence[TrialRow], names: Sequence[str]) -> None:
    known = dict.fromkeys([*FIXED, *(key for row in rows for key in (*row.overrides, *row.metrics))])
    for name in names:
        if rows and name not in known and all(_setting(row.config, name) is MISSING for row in rows):
            near = nearest(name, known)
            raise ConfigError(
                f"no trial has {name!r}", where="--columns", fix=f"did you mean {near}?" if near else ", ".join(known)
            )


def _is_metric(rows: Sequence[TrialRow], name: str) -> bool:
    return any(name in row.metrics for row in rows)


def _cell(row: TrialRow, name: str, exact: bool) -> str:
    if name == "trial_id":
        return row.trial_id if exact else row.trial_id[:8]
    if name == "seconds":
        return f"{row.ended - row.started:.3f}" if row.started and row.ended else ""
    if name in FIXED:
        value: Any = getattr(row, name)
    elif name in row.overrides:
        value = row.overrides[name]
    elif name in row.metrics:
        value = row.metrics[name]
        return repr(value) if exact else naming.metric(value)
    else:
        value = _setting(row.config, name)
    if value is MISSING or (name in FIXED and value is None):
        return ""
    if not exact:
        return naming.value(value)
    return value if isinstance(value, str) else dumps(value)


def _setting(config: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(config, dict) or part not in config:
            return MISSING
        config = config[part]
    return config


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they must be; the last one is cut where a terminal ends."""
    cells = [list(titles), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    for row in cells:
        if room > before and len(row[-1]) > room - before:
            row[-1] = row[-1][: room - before - 1] + "…"
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
