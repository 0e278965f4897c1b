"""`orchestrate trials`: the trials as a table, CSV or JSON lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator.cli import tables
from orchestrator.cli.common import Parser, find_sweep, gc_paused, positive
from orchestrator.cli.key_value import key_value
from orchestrator.cli.pager import in_pager, through_pager
from orchestrator.errors import ConfigError, nearest
from orchestrator.manifest.query import Query
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import Objective, State
from orchestrator.results import listing
from orchestrator.results.listing import FIXED, Listing

SCREENFUL = 50
EXAMPLES = (
    "trials --sort valid/accuracy",
    "trials address-tagging --where optimizer=adam --columns trial_id,optimizer.lr,valid/accuracy",
    "trials --state failed",
    "trials --format csv > trials.csv",
)


def parser() -> Parser:
    options = Parser("trials", "[SWEEP] [options]", "The trials of a sweep, compared.", EXAMPLES)
    options.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name or folder (default: the latest)")
    options.add_argument("--state", metavar="S", help="only trials in this state, as `failed`")
    options.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only trials with this setting"
    )
    options.add_argument("--sort", metavar="METRIC", help="best first by the objective, else growing; -METRIC turns it")
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
    with Reader(find_sweep(options)) as reader, reader.snapshot():
        plan = reader.plan()
        objective = plan.spec.objective if plan else None
        metric, descending = _order(options.sort, objective)
        if metric:
            _check_metric(reader, metric)
        query = Query(
            state=_state(options.state),
            where=dict(key_value(word, "--where", "optimizer=adam") for word in options.where),
            sort=metric,
            descending=descending,
            limit=_limit(options),
            everything=options.all,
        )
        if options.format == "json":
            rows = reader.listed(listing.AS_JSON, query)
        else:
            first = [name for name in (metric, objective and objective.metric) if name]
            table = Listing(reader, query, first, options.columns.split(",") if options.columns else ())
            cells = table.cells(exact=options.format == "csv")
            left = reader.count(query) - len(table) if query.limit and options.limit is None else 0
    # Read to the end: whoever reads slowly what comes now holds no transaction open.
    if options.format == "json":
        tables.print_json(rows)
    elif options.format == "csv":
        tables.print_csv(table.names, cells)
    elif not len(table):
        print("no trial matches")
    else:
        tables.print_table(table.titles(), cells)
        if left:
            print(f"… and {left} more: --limit 0 shows all")
    return 0


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


def _order(sort: str | None, objective: Objective | None) -> tuple[str | None, bool]:
    """(metric, descending): the objective with its best first, any other growing; a leading minus turns it."""
    if sort is None:
        return None, False
    metric = sort.removeprefix("-")
    descending = objective is not None and metric == objective.metric and objective.mode == "max"
    return metric, descending != sort.startswith("-")


def _check_metric(reader: Reader, metric: str) -> None:
    if reader.reports_metric(metric):
        return
    known = reader.metric_names()
    if known:
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
