"""Reports: 4 and 64 trials at once, each reporting two numbers as fast as it can.

Rate: rows, from the first report to the moment another process finds the last row committed in the manifest. All
trials wait for each other before they begin. Ray Tune with its default loggers (CSV, JSON, TensorBoard), fewer
reports since its rate does not depend on their number: to the end of the last trial's loop, `tune.report` returning
when the row has been taken. The median cost of `run.report` is measured around each call in the trials.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from bench import Options, Project, Row, alternate, check, cluster, main, median, peer, scratch, span

SWEEP = """
x: 0
trials: 4
reports: 0
meet: ""
seed: 1
sweep:
  trainer: reporter:train
  axes: {x: "range(0, 4)"}
  ignore: [meet]
  resources: {gpus: 1, cpus: 1}
  tracking: {wandb: false}
"""


def ours(project: Project, trials: int, reports: int) -> tuple[float, float]:
    """(durable rows a second, median cost of `run.report` in µs)."""
    name, share = project.next_name(), 4 / trials
    meet = project.root / name
    meet.mkdir()
    with project.started(
        "sweep", "conf/sweep.yaml", f"sweep.name={name}", f"x=range(0,{trials})", f"trials={trials}",
        f"reports={reports}", f"meet={meet}", f"sweep.resources.gpus={share}", f"sweep.resources.cpus={share}",
    ) as process:  # fmt: skip
        durable = until_durable(project.root / "runs" / name / "manifest.db", trials * (reports + 1), process)
        out, _ = process.communicate()
    check(process.returncode == 0, out)
    project.check(name, trials, trials * (reports + 1))
    ((first,),) = project.query(name, "SELECT min(time) FROM report")
    last = [json.loads(text) for (text,) in project.query(name, "SELECT metrics FROM trials")]
    check(all(row["step"] == reports - 1 for row in last), "the last step is not the last row")
    return trials * reports / (durable - first), median(row["median_us"] for row in last)


def until_durable(path: Path, rows: int, process: object) -> float:
    """When another process finds that many rows committed."""
    while not path.exists():
        time.sleep(0.05)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as db:
        while True:
            try:
                found = db.execute("SELECT max(id) FROM report").fetchone()[0] or 0
            except sqlite3.OperationalError:  # the schema is not there yet
                found = 0
            if found >= rows or process.poll() is not None:  # type: ignore[attr-defined]
                check(found >= rows, f"{found} rows instead of {rows}")
                return time.time()
            time.sleep(0.01)


def tune(address: str, trials: int, reports: int) -> float:
    spans = peer(address, "tune-reports", "--trials", trials, "--slots", trials, "--reports", reports)
    check(len(spans) == trials, f"{len(spans)} trials of Tune")
    return trials * reports / span(spans)


def measure(options: Options) -> list[Row]:
    rows = []
    sizes = [(4, 2_000, 100)] if options.quick else [(4, 50_000, 500), (64, 3_000, 20)]
    with scratch() as root, cluster() as address:
        project = Project(root / "project", SWEEP, "reporter.py", address)
        for trials, reports, fewer in sizes:
            sides = {
                "ours": lambda trials=trials, reports=reports: ours(project, trials, reports),
                "tune": lambda trials=trials, reports=fewer: (tune(address, trials, reports), 0.0),
            }
            found = alternate(options, sides)
            rate, theirs = (median(rate for rate, _ in found[who]) for who in ("ours", "tune"))
            cost = median(cost for _, cost in found["ours"])
            what = f"reports of {trials} trials at once"
            rows += [
                Row(f"{what}, durable", rate, "/s", "Tune, default", theirs, 10_000, "(floor)", "≥ 10,000/s; ≥ 30×",
                    rate >= 10_000 and rate >= 30 * theirs),
                Row(f"one run.report, {what}", cost, "µs", goal="< 20 µs", met=cost < 20),
            ]  # fmt: skip
    return rows


if __name__ == "__main__":
    main(measure)
