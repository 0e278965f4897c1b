"""Resume: the same command after 100,000 trials are done, until it says that nothing is to run.

It composes and renders every trial again, and compares them with the manifest: that is what makes an edited sweep run
its difference. The limit is the expansion alone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import children
import expansion
import large
from bench import ROOT, Options, Row, alternate, check, main, median, query, scratch


def ours(root: Path, total: int) -> float:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchestrator.cli", "sweep", "conf/sweep.yaml"]
    started = time.perf_counter()
    done = children.finished(command, cwd=root, env=env)
    seconds = time.perf_counter() - started
    check(
        done.returncode == 0 and f"{total} succeeded" in done.stdout and "0 to run" in done.stdout,
        done.stdout + done.stderr,
    )
    return seconds


def measure(options: Options) -> list[Row]:
    with scratch() as root:
        file, folder = large.write(root, reports=1)
        ((total,),) = query(folder, "SELECT count(*) FROM trial")
        found = alternate(options, {"ours": lambda: ours(root, total), "expansion": lambda: expansion.ours(file)})
        ((attempts,),) = query(folder, "SELECT count(*) FROM attempt")
        check(attempts == total, f"{attempts} attempts")
    mine, limit = median(found["ours"]), median(found["expansion"])
    return [Row(f"resume of {total:,} trials done", mine, "s", "", None, limit, "(expansion)", "< 5 s", mine < 5)]


if __name__ == "__main__":
    main(measure)
