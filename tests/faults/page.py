"""`make faults`: the tests that inject a fault, all of them or some groups, and the page that says what held.

A test says what it injects with a mark, wherever it stands:
`@pytest.mark.fault("coordinator", "SIGTERM", "sent while two trials run", "exit code 130, the same command goes on")`.
Counts are kept in build/faults.json, so that a run of some groups renews only their rows; where a group was never run,
as in a fresh clone, its part of the page stays as it is.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KEPT, PAGE = ROOT / "build" / "faults.json", ROOT / "docs" / "reliability.md"
GROUPS = {
    "coordinator": "The coordinator",
    "ray": "Ray",
    "trial": "Trials",
    "code": "The code",
    "disk": "The disk",
    "wandb": "W&B",
}
PACKAGES = ("ray", "hydra-core", "wandb", "torch")
HEAD = """# Reliability

`make faults` injects the faults below into real sweeps (real processes, signals, Ray, the W&B SDK against a recording
server) and writes this page; `make faults FAULTS="trial disk"` does some groups and leaves the other rows as they were.
`make test` runs a part of it. *times*: how often a fault was injected in the run that wrote the row.

After every fault marked ✱: each trial ends in the right state with the right cause; an uninjured run of the same sweep
gives the same numbers, bit for bit; no finished result is lost or doubled; each step stands in the manifest once; no
process, GPU, lock or half-written file is left. The other rows are tests that check what the last column says.
*local*: trials run in two slots of one machine without Ray, all else is as users have it; *Ray*: they run in Ray.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", default=None, metavar="GROUPS", help=f"only faults: all, or of {', '.join(GROUPS)}")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--faults") is not None:
        config.pluginmanager.register(Campaign(config.getoption("--faults").split()))


class Campaign:
    """Selects, counts, writes."""

    def __init__(self, groups: list[str]) -> None:
        unknown = set(groups) - set(GROUPS)
        if unknown:
            raise pytest.UsageError(f"no faults named {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
        self.groups = groups or list(GROUPS)
        self.rows: dict[str, dict[str, Any]] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if (mark := item.get_closest_marker("fault")) and mark.args[0] in self.groups]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        report: pytest.TestReport = yield  # type: ignore[assignment,misc]
        if report.when == "call" or not report.passed:
            group, fault, how, held = item.get_closest_marker("fault").args  # type: ignore[union-attr]
            key = f"{group}\n{fault}\n{how}"
            row = self.rows.setdefault(key, {"group": group, "fault": fault, "how": how, "held": held, "times": 0})
            times = dict(report.user_properties).get("times", 1)
            row["times"] += times if report.passed else 0
            for outcome in ("failed", "skipped"):
                row[outcome] = row.get(outcome, 0) + (report.outcome == outcome)
        return report  # type: ignore[return-value]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.rows or session.config.getoption("keyword"):
            return
        kept = [row for row in _kept() if row["group"] not in self.groups]
        facts = {"at": time.strftime("%Y-%m-%d"), "commit": _commit()}
        rows = kept + [row | facts for row in self.rows.values()]
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(rows, indent=1))
        PAGE.write_text(_page(rows, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _kept() -> list[dict[str, Any]]:
    return json.loads(KEPT.read_text()) if KEPT.exists() else []  # type: ignore[no-any-return]


def _page(rows: list[dict[str, Any]], before: str) -> str:
    parts = [HEAD, _machine()]
    written = {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in before.split("\n## ")[1:]}
    for group, title in GROUPS.items():
        mine = [row for row in rows if row["group"] == group]
        if not mine and title in written:
            parts.append(written[title])
        elif mine:
            when = ", ".join(sorted({f"{row['at']}, commit {row['commit']}" for row in mine}))
            lines = [f"| {row['fault']} | {row['how']} | {_times(row)} | {_held(row)} |" for row in mine]
            table = ["| fault | how | times | what held |", "|---|---|---|---|", *lines]
            parts.append("\n".join([f"## {title}\n", f"{when}.\n", *table, ""]))
    return "\n".join(parts)


def _times(row: dict[str, Any]) -> str:
    return "–" if row["skipped"] and not row["times"] else str(row["times"])


def _held(row: dict[str, Any]) -> str:
    if row["failed"]:
        return f"**did not hold** in {row['failed']} of {row['failed'] + row['times']}: {row['held']}"
    return f"not run here: {row['held']}" if _times(row) == "–" else row["held"]


def _machine() -> str:
    cores, memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"Machine: {cores} cores, {memory:.0f} GiB, no GPU (logical GPUs), Linux {platform.release()}, "
        f"Python {platform.python_version()}.\nVersions: {versions}.\n"
    )


def _commit() -> str:
    return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
