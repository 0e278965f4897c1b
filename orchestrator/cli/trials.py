"""`orchestrate trials`: the trials as a table, CSV or JSON lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from orchestrator import naming
from orchestrator.cli import tables
from orchestrator.cli.common import Parser, find_sweep, gc_paused, positive
from orchestrator.cli.key_value import typed
from orchestrator.cli.pager import in_pager, through_pager
from orchestrator.errors import ConfigError
from orchestrator.folder.lock import holder_of
from orchestrator.manifest.query import Column, Query, Shown
from orchestrator.manifest.reader import Reader
from orchestrator.model.exact_json import dumps
from orchestrator.model.rows import PlanRow
from orchestrator.model.sweep import Objective
from orchestrator.results import listing
from orchestrator.results.best import ConfigRow, by_config, value_text
from orchestrator.results.conditions import condition, states
from orchestrator.results.listing import Listing, Request
from orchestrator.results.names import FIXED, Names

SCREENFUL = 50
EXAMPLES = (
    "trials address-tagging --where optimizer=adam,SGD --where 'lr>=0.01'",
    "trials --by config",
    "trials --sort -valid/loss --columns trial_id,lr,valid/loss",
    "trials --state failed",
    "trials --format csv > trials.csv",
)


def parser() -> Parser:
    text = "The trials of a sweep, compared: by the objective, the best first."
    options = Parser("trials", "[SWEEP] [options]", text, EXAMPLES)
    options.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    options.add_argument("--state", metavar="S", help="only trials in this state, as `failed`")
    options.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only these: optimizer=adam,SGD, 'lr>0.01', 'model!=gru' (quote < > !); names as shown, or dotted keys",
    )
    options.add_argument(
        "--sort", metavar="METRIC", help="the best first by `objective`, else growing; -METRIC turns it"
    )
    options.add_argument(
        "--at", choices=["last", "best"], help="metrics at this step of the objective (default: its own)"
    )
    options.add_argument("--by", choices=["trial", "config"], default="trial", help="a row a trial, or a row a config")
    options.add_argument("--columns", metavar="A,B", help=f"settings, metrics, or {', '.join(FIXED)}")
    options.add_argument(
        "--limit",
        type=_number,
        metavar="N",
        help=f"the first N; 0 means all (default: all; without a pager, {SCREENFUL} on a terminal)",
    )
    options.add_argument("--all", action="store_true", help="trials of earlier plans too")
    options.add_argument("--format", choices=["table", "csv", "json"], default="table")
    options.add_argument("--json", action="store_const", const="json", dest="format", help="one JSON object a line")
    return options


@through_pager
@gc_paused()
def run(words: Sequence[str]) -> int:
    options = parser().read(_guard_minus(words))
    folder = find_sweep(options)
    live = holder_of(folder) is not None
    with Reader(folder) as reader, reader.snapshot():
        plan = reader.plan()
        objective = plan.spec.objective if plan else None
        names = None
        if options.where or options.columns or not _by_objective(options.sort, objective):
            names = Names.of(reader, objective, options.at, options.all)
        request = _request(options, names, objective, live)
        if options.by == "config" and plan is not None:
            return _print_configs(options, reader, plan, request)
        if options.format == "json":
            lines = listing.json_lines(reader, request)
        else:
            table = Listing(reader, request, names, _columns(options, names), everything=options.format == "csv")
            cells = table.cells(exact=options.format == "csv")
            left = reader.count(request.query) - len(table) if request.query.limit and options.limit is None else 0
    # Read to the end: whoever reads slowly what comes now holds no transaction open.
    if options.format == "json":
        tables.print_json(lines)
    elif options.format == "csv":
        tables.print_csv(table.headers(), cells)
    elif not len(table):
        print("no trial matches")
    else:
        _print_table(table, cells, left)
    return 0


def _print_table(table: Listing, cells: Sequence[Sequence[str]], left: int) -> None:
    """`left`: trials that are not shown."""
    titles = table.titles()
    kept = tables.fitting(titles, cells, table.optional)
    tables.print_table([titles[each] for each in kept], [cells[each] for each in kept])
    if left:
        print(f"… and {left} more: --limit 0 shows all")
    if left_out := table.left_out + len(titles) - len(kept):
        metrics = naming.count(left_out, "more metric")
        print(f"… and {metrics}: --columns shows those that you name, --format csv all")


def _by_objective(sort: str | None, objective: Objective | None) -> bool:
    """Whether a word after `--sort` means the order of the objective, which is also that without any."""
    return sort is None or (objective is not None and sort.removeprefix("-") in ("objective", objective.metric))


def _request(options: argparse.Namespace, names: Names | None, objective: Objective | None, live: bool) -> Request:
    shown = Shown.at(objective, options.at)
    turned, ranked = (options.sort or "").startswith("-"), _by_objective(options.sort, objective)
    metric = None if ranked or names is None else _metric(options.sort.removeprefix("-"), names)
    query = Query(
        states=states(options.state, "--state") if options.state else (),
        where=[condition(word, names, _typed) for word in options.where] if names else (),
        sort=metric,
        descending=turned,
        limit=_limit(options),
        everything=options.all,
        shown=shown if live else shown.without_coordinator(),
    )
    at = options.at or (objective.at if objective else "last")
    return Request(query, objective, at, ranked=ranked, worst_first=turned)


def _metric(word: str, names: Names) -> str:
    column = names.find(word, "--sort")
    if column.kind != "metric":
        raise ConfigError(f"{word!r} is no metric", where="--sort", fix="name a metric, or objective")
    return column.name


def _columns(options: argparse.Namespace, names: Names | None) -> list[Column]:
    if not options.columns or names is None:
        return []
    return [names.find(word, "--columns") for word in options.columns.split(",")]


def _typed(text: str) -> Any:
    try:
        return typed(text)
    except yaml.YAMLError as error:
        raise ValueError(f"the value is not YAML: {getattr(error, 'problem', None) or 'it cannot be read'}") from error


def _print_configs(options: argparse.Namespace, reader: Reader, plan: PlanRow, request: Request) -> int:
    """A row a config, the best first: its settings, and the objective over its repeats."""
    objective = plan.spec.objective
    if objective is None or not request.ranked or options.columns:
        what = "needs an objective" if objective is None else "is sorted by the objective, and has columns of its own"
        raise ConfigError(f"--by config {what}", where="--by", fix="leave it out for a row a trial")
    rows = list(by_config(reader, plan, request.query, request.worst_first))
    shown = rows[: request.query.limit]
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    names = Names(keys, [], objective, options.at)
    columns = [Column("setting", key) for key in keys]
    if options.format == "json":
        tables.print_json(dumps(row.as_json()) + "\n" for row in shown)
    elif options.format == "csv":
        titles = ["config_id", *map(names.name, columns), "mean", "sd", "repeats", "ended_well", "failed", "best_trial"]
        tables.print_csv(titles, _transposed([_config_cells(row, list(keys)) for row in shown], len(titles)))
    elif not shown:
        print("no trial matches")
    else:
        title = f"{objective.metric} ({options.at or objective.at})"
        cells = [
            [*(_cell(row.settings, key) for key in keys), value_text(row.config), row.config.trials[0][:8]]
            for row in shown
        ]
        tables.print_table([*map(names.title, columns), title, "best trial"], _transposed(cells, len(keys) + 2))
        if len(rows) > len(shown) and options.limit is None:
            print(f"… and {len(rows) - len(shown)} more: --limit 0 shows all")
    return 0


def _config_cells(row: ConfigRow, keys: Sequence[str]) -> list[str]:
    config = row.config
    numbers = ["" if value is None else repr(value) for value in (config.mean, config.sd)]
    counts = map(str, (config.of, config.well, config.failed))
    return [config.config_id, *(_cell(row.settings, key) for key in keys), *numbers, *counts, config.trials[0]]


def _cell(settings: Any, key: str) -> str:
    return naming.value(settings[key]) if key in settings else ""


def _transposed(rows: Sequence[Sequence[str]], width: int) -> list[Sequence[str]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _limit(options: argparse.Namespace) -> int | None:
    """A terminal without a pager gets a screenful or two unless it asks for more; all else gets everything."""
    if options.limit is None and options.format == "table" and sys.stdout.isatty() and not in_pager():
        return SCREENFUL
    return options.limit or None


def _number(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _guard_minus(words: Sequence[str]) -> list[str]:
    """`--sort -loss`: argparse would take the value for an option."""
    joined, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        joined.append(f"--sort={rest.pop(0)}" if word == "--sort" and rest else word)
    return joined
