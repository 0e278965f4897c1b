"""What a trial can do to itself, and to us. One of twelve does it; the eleven others notice nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bed import Bed, Series
from tests.ray.support import until

ENDS = {  # do: how it is said, what the trial does at its third step, the settings it needs, its end
    "raises": ("an exception", "`raise ValueError`", (), ("FAILED", "exception")),
    "leaves": ("it leaves early", "`sys.exit(0)` in the middle", (), ("SUCCEEDED", "")),
    "exits_without_report": ("it leaves at once", "`sys.exit(0)` without a report", (), ("SUCCEEDED", "")),
    "leaves_hard": ("a hard exit", "`os._exit(3)`", (), ("FAILED", "exit")),
    "segfaults": ("a crash", "SIGSEGV", (), ("FAILED", "signal")),
    "is_killed": ("killed from outside", "SIGKILL", (), ("FAILED", "signal")),
    "allocates_without_end": (
        "it takes all memory",
        "allocates without end below a limit of 2 GiB",
        (),
        ("FAILED", "oom"),
    ),
    "loops": ("it never ends", "an endless loop, `sweep.timeout=2s`", ("sweep.timeout=2s",), ("FAILED", "timeout")),
    "leaves_a_child": (
        "a grandchild stays",
        "in a session of its own, ignores SIGTERM; the trial ends",
        (),
        ("SUCCEEDED", ""),
    ),
    "prints": ("1 GB of output", "lines of 1 MB", ("size=1024",), ("SUCCEEDED", "")),
    "reports_much": ("a report of 10 MB", "`run.report` of 2100 long names, twice", (), ("SUCCEEDED", "")),
    "reports_nan": ("NaN everywhere", "NaN and infinities in a report", (), ("SUCCEEDED", "")),
    "moves": ("another working directory", '`os.chdir("/")`, an empty `sys.path`', (), ("SUCCEEDED", "")),
    "forks": ("processes of its own", "forks five, as DataLoader does; leaves three", (), ("SUCCEEDED", "")),
}


def _cases() -> list[Any]:
    return [
        pytest.param(
            do,
            marks=pytest.mark.fault("trial", words[0], f"local: {words[1]}", f"✱ {_end(words[3])}; the others run on"),
        )
        for do, words in ENDS.items()
    ]


def _end(wanted: tuple[str, str]) -> str:
    return wanted[0] + (f", cause {wanted[1]}" if wanted[1] else "")


@pytest.fixture
def small_node(bed: Bed) -> Iterator[Bed]:
    """All that runs here has 1.5 GB together."""
    groups = Path("/sys/fs/cgroup/memory")
    mine = [line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line]
    if not mine or not os.access(groups / mine[0][1:], os.W_OK):
        pytest.skip("needs a memory control group that may be divided")
    group = groups / mine[0][1:] / f"faults-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(1500 * 10**6))
    bed.command = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *bed.command)
    yield bed
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.mark.fault(
    "trial",
    "it takes all memory of its node",
    "local: a control group of 1.5 GB, memory that is written to without end, twice",
    "✱ FAILED, cause oom, how much it held; the others run on",
)
def test_a_node_without_memory(small_node: Bed, uninjured: Callable[..., Series]) -> None:
    bed, expected = small_node, uninjured("x=range(4)")
    out = bed.sweep("do=exhausts_memory", "x=range(4)", code=1)
    assert "Traceback" not in out
    bed.sound()
    assert bed.attempts() == [("SUCCEEDED", ""), ("FAILED", "oom"), *[("SUCCEEDED", "")] * 2]
    told = bed.query("SELECT message FROM attempt WHERE cause = 'oom'")
    assert len(told) == 2
    assert all("its processes held" in text or "the kernel killed" in text for (text,) in told)
    series = bed.series()
    assert sum(series[name] == steps for name, steps in expected.items()) == 3


@pytest.mark.parametrize("do", _cases())
def test_one_of_many(bed: Bed, uninjured: Callable[..., Series], do: str) -> None:
    expected = uninjured("x=range(4)")
    _, _, words, wanted = ENDS[do]
    out = bed.sweep(f"do={do}", "x=range(4)", *words, code=int(wanted[0] != "SUCCEEDED"))
    assert "Traceback" not in out
    bed.sound()
    ends = bed.attempts()
    assert ends[1] == wanted
    assert ends[:1] + ends[2:] == [("SUCCEEDED", "")] * 3
    logs = list((bed.runs / "work" / "trials").glob("*/attempt-1.log"))
    assert sum(path.stat().st_size for path in logs) < 17 * 2**20, "output has a cap"
    series, trials = bed.series(), [row[0] for row in bed.query("SELECT trial_id FROM trials ORDER BY position")]
    assert [series[name] for name in trials if name != trials[1]] == [
        expected[name] for name in trials if name != trials[1]
    ]
    assert series.get(trials[1], {}).items() <= expected[trials[1]].items() or do == "reports_nan"
