"""Several nodes: what a trial asks for it gets, alone, and nothing needs a shared file system."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.decide.quarantine import Quarantine
from orchestrator.model.sweep import Resources
from tests.ray.support import PATIENCE, Project, alive, until

JOINING = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 * 2**20}
ATTEMPTS = "SELECT node_id, gpus, started, ended FROM attempt WHERE started IS NOT NULL"


@pytest.fixture
def join(cluster: Any) -> Iterator[Callable[[str], Any]]:
    """Adds nodes of one GPU and this resource. They are gone afterwards, for Ray too: the next test counts slots."""
    joined = []

    def add(resource: str) -> Any:
        joined.append(cluster.add_node(**JOINING, resources={resource: 1}))
        return joined[-1]

    yield add
    for node in joined:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)  # says good-bye: its head need not find out, which takes 15 s
    cluster.wait_for_nodes(PATIENCE)


def assert_never_shared(rows: list[tuple[Any, ...]], at_once: int = 1) -> None:
    """No more than `at_once` trials held one GPU of one node at any time."""
    changes = defaultdict(list)
    for node, gpus, started, ended in rows:
        for gpu in json.loads(gpus):
            changes[node, gpu] += [(started, 1), (ended, -1)]
    assert changes
    for slot, events in changes.items():
        held = 0
        for _, change in sorted(events):
            held += change
            assert held <= at_once, slot


@pytest.mark.fault(
    "ray",
    "two sweeps on one cluster",
    "Ray: 60 trials on six logical GPUs of two nodes",
    "no GPU is ever held twice",
)
def test_no_gpu_is_ever_shared(project: Project) -> None:
    """Sixty trials on six GPUs of two nodes, and a second sweep beside them."""
    other = project.start("sweep", "conf/sweep.yaml", "sweep.name=other", "x=range(30)", f"meet={project.meet}")
    project.sweep("x=range(30)", "steps=6")
    other.communicate(timeout=120)
    rows = project.query(ATTEMPTS) + project.query(ATTEMPTS, "other")
    assert len(rows) == 60
    assert_never_shared(rows)
    assert len({(node, gpus) for node, gpus, _, _ in rows}) == 6


def test_long_trials_after_short_ones(project: Project) -> None:
    """Short trials are dealt to slots several at once; what lies behind a long one goes back."""
    words = ("x=range(52)", "do=late")
    process = project.start_sweep(*words)
    project.until_waiting(6, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    held = "SELECT count(*) FROM attempt WHERE state = 'CANCELLED' AND started IS NOT NULL"
    assert project.query(held) == [(6,)]
    project.go()
    project.sweep(*words)
    assert project.query("SELECT count(*) FROM trials WHERE state = 'SUCCEEDED'") == [(52,)]
    assert project.query("SELECT count(*) FROM attempt WHERE state = 'SUCCEEDED'") == [(52,)]
    assert_never_shared(project.query(ATTEMPTS))


def test_the_board_deals() -> None:
    from orchestrator.executors.ray.slot import Board, Parcel, Task

    def task(number: int) -> Any:
        return Task((str(number), 1), b"")

    async def play() -> None:
        board, tasks = Board(), [task(number) for number in range(9)]
        await board.offer("kind", tasks, slots=2)
        assert await board.asked(tasks[0].key) == (None, 0)
        await board.set_live(256)
        assert await board.take("kind", "a", 3) == tasks[:3]  # no more than it asks for
        taken = await board.take("kind", "b", 16)
        assert taken == tasks[3:6]  # nor than its share
        await board.ask(taken[2].key, "cancelled")
        assert await board.give_back("kind", "b", taken[1:]) == [taken[2].key]
        assert await board.asked(taken[2].key) == ("cancelled", 256)
        assert await board.leave("b", tasks[8].key) == [tasks[8].key, taken[0].key]
        waiting = asyncio.create_task(board.parcel(tasks[7].key))
        await asyncio.sleep(0)
        await board.deliver(tasks[7].key, Parcel(problem="none"))
        assert await waiting == Parcel(problem="none")
        await board.ask(tasks[6].key, "cancelled")
        assert await board.take("kind", "a", 1) == [tasks[4]]
        assert await board.withdraw([each.key for each in tasks]) == [each.key for each in tasks[6:]]
        assert await board.take("kind", "a", 1) == []

    asyncio.run(play())


def test_fractions_of_a_gpu(project: Project) -> None:
    process = project.start_sweep("x=range(12)", "do=hold", "sweep.resources.gpus=0.5", "sweep.resources.cpus=0.5")
    project.until_waiting(12, process)
    project.go()
    process.communicate(timeout=PATIENCE)
    rows = project.query(ATTEMPTS)
    assert_never_shared(rows, at_once=2)
    assert len({(node, gpus) for node, gpus, _, _ in rows}) == 6


def test_several_gpus_as_the_config_says(project: Project) -> None:
    """`gpus: ${...}` is resolved for each trial."""
    project.sweep("+wide=1,2,4", "x=0", "sweep.resources.gpus=${wide}")
    widths = project.query("SELECT json_extract(t.config, '$.wide'), t.gpus FROM trials t ORDER BY 1")
    assert [(wide, len(json.loads(gpus))) for wide, gpus in widths] == [(1, 1), (2, 2), (4, 4)]


def test_labels_and_custom_resources(project: Project) -> None:
    project.sweep("x=0,1", "sweep.resources.labels={zone: north}")
    (north,) = set(project.query("SELECT node_id FROM attempt"))
    project.sweep("x=2,3", "sweep.resources.custom={licence: 1}")
    assert set(project.query("SELECT node_id FROM attempt")) == {north}
    times = project.query("SELECT started, ended FROM attempt ORDER BY started")[-2:]
    assert times[0][1] <= times[1][0]
    out = project.sweep("x=4", "sweep.resources.labels={zone: south}", code=2)
    assert "with labels {'zone': 'south'}, and no node has that" in out


def test_trials_avoid_quarantined_nodes(project: Project) -> None:
    """The label that the quarantine adds works in Ray."""
    project.sweep("x=0", "sweep.resources.labels={zone: north}")
    ((north,),) = project.query("SELECT node_id FROM attempt")
    placed = Quarantine()
    placed.nodes[north] = "north"
    labels = json.dumps(placed.avoid(Resources()).labels)
    file = project.root / "conf" / "sweep.yaml"
    file.write_text(file.read_text().replace("cpus: 1}", f"cpus: 1, labels: {labels}}}"))
    project.sweep("x=range(1, 13)")
    nodes = project.query("SELECT node_id FROM attempt ORDER BY started")[1:]
    assert len(nodes) == 12
    assert (north,) not in nodes


def test_threads_and_devices_of_a_trial(project: Project) -> None:
    """What Ray gave is what the trial sees; one without a GPU sees none."""
    (project.root / "seen.py").write_text(
        "import os\n"
        "def train(cfg, run):\n"
        "    print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'], 'RAY_AUTH_TOKEN' in os.environ)\n"
        "    return 1.0\n"
    )
    project.sweep("x=range(4)", "sweep.trainer=seen:train", "sweep.resources.cpus=2")
    for trial_id, gpus in project.query("SELECT trial_id, gpus FROM trials"):
        log = (project.runs / "work" / "trials" / trial_id / "attempt-1.log").read_text()
        assert log == f"{json.loads(gpus)[0]} 2 False\n"
    project.sweep("x=0", "sweep.trainer=seen:train", "sweep.resources.gpus=0", "--rerun", "all")
    ((trial_id,),) = project.query("SELECT trial_id FROM trials WHERE current")
    logs = project.runs / "work" / "trials" / trial_id
    assert (logs / "attempt-2.log").read_text().split() == ["1", "False"]  # no GPU at all, one thread


BESIDE = """
open(__file__ + "." + str(os.getpid()), "w").close()
assert b"caf\\xe9.py" in os.listdir(os.fsencode(os.path.dirname(__file__)))
"""


@pytest.fixture
def far(project: Project, cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A third node that does not see the project: over its folder lies an empty one, in a mount namespace."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs a mount namespace")
    scratch = tmp_path_factory.mktemp("far")
    ray = Path(sys.executable).parent / "ray"
    start = (
        f"mount -t tmpfs none {project.root} && export TMPDIR={scratch} && cd / && "
        f"exec {ray} start --address={project.address} --num-cpus=2 --num-gpus=2 --block --disable-usage-stats "
        f"--object-store-memory=100000000 --labels zone=far --resources '{{\"far\": 2}}'"
    )
    node = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", start],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until(lambda: any("far" in row["Resources"] for row in cluster.global_state.node_table()))
        yield project
    finally:
        os.killpg(node.pid, 15)
        node.communicate(timeout=PATIENCE)


def test_a_node_without_the_sweeps_folder(far: Project) -> None:
    """Code goes there; reports, output, files and checkpoints come back; a killed trial goes on from its checkpoint."""
    (far.root / "weights.bin").write_bytes(b"data")
    (far.root / os.fsdecode(b"caf\xe9.py")).write_text("")
    (far.root / "work.py").write_text((far.root / "work.py").read_text() + BESIDE)
    said = far.sweep("do=once", "x=0,1", "save=true", "sweep.resources.custom={far: 1}", "sweep.retries=1")
    assert "does not have meet, weights.bin beside the code: data is not sent" in said
    assert "written by a trial beside its code; no part of the code" in said
    rows = far.query("SELECT attempt, state, restored FROM attempt ORDER BY trial, attempt")
    assert rows == [(1, "FAILED", None), (2, "SUCCEEDED", 1)] * 2
    for trial in far.trials():
        folder = far.runs / "work" / "trials" / trial["trial_id"]
        assert (folder / "files" / "result.txt").read_text() == str(trial["overrides"]["x"])
        assert "attempt 2" in (folder / "attempt-2.log").read_text()
        assert list((folder / "checkpoints").iterdir())
        (shown,) = far.json("show", trial["trial_id"], "--json")
        assert [row["step"] for row in shown["series"]] == [0, 1, 2, 3]


@pytest.mark.fault(
    "ray",
    "the object store is full",
    "Ray: two trials at once on a node that does not see the sweep's folder leave 150 MB each; it has room for 100 MB",
    "SUCCEEDED; the files are in the sweep's folder, whole",
)
def test_more_files_than_the_object_store_holds(far: Project) -> None:
    far.sweep("do=big", "x=0,1", "+size=150000000", "sweep.resources.custom={far: 1}")
    assert far.counts() == {"SUCCEEDED": 2}
    for trial in far.trials():
        assert (far.runs / "work" / "trials" / trial["trial_id"] / "files" / "big").stat().st_size == 150_000_000


@pytest.mark.fault(
    "ray",
    "a node is lost",
    "Ray: removed without notice; another joins late",
    "the trial goes on from its checkpoint on the node that joined late",
)
def test_a_node_is_lost(project: Project, cluster: Any, join: Callable[[str], Any]) -> None:
    """Its trial goes on elsewhere, free of charge, and leaves no process there."""
    node = join("spare")
    process = project.start_sweep("do=hold", "x=0", "save=true", "sweep.resources.custom={spare: 1}")
    (pid,) = project.until_waiting(1, process)
    until(lambda: project.query("SELECT count(*) FROM checkpoint") == [(2,)], process)
    cluster.remove_node(node, allow_graceful=False)
    until(lambda: not alive(pid))
    until(lambda: project.query("SELECT count(*) FROM attempt WHERE state = 'LOST'") == [(1,)], process)
    assert process.stdout is not None
    note = next(line for line in process.stdout if "trials wait" in line)
    assert "they ask for GPU 1, CPU 1, spare 1, and no node has that now. Nodes: " in note
    project.go()
    join("spare")  # late
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert out.count("note: there is a node again that has GPU 1, CPU 1, spare 1") == 1
    assert out.count("note: ") == 1
    assert "raylet" not in out + err  # we say it, Ray does not
    rows = project.query("SELECT attempt, state, cause IN ('lost_node', 'lost_worker'), restored FROM attempt")
    assert rows == [(1, "LOST", 1, None), (2, "SUCCEEDED", 0, 1)]


@pytest.mark.fault(
    "ray",
    "a node is drained",
    "Ray: preemption announced",
    "the trial has `sweep.grace` to save, is LOST, and goes on elsewhere from what it saved",
)
def test_a_node_is_drained(project: Project, cluster: Any, join: Callable[[str], Any]) -> None:
    node = join("drain")
    process = project.start_sweep("do=grace", "x=0", "sweep.grace=60", "sweep.resources.custom={drain: 1}")
    (pid,) = project.until_waiting(1, process)
    drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
    later = ["--node-id", node.node_id, "--deadline-remaining-seconds", "600"]
    subprocess.run([*drain, *why, *later], check=True, capture_output=True)
    until(lambda: not alive(pid))
    until(lambda: project.query("SELECT count(*) FROM attempt WHERE state = 'LOST'") == [(1,)], process)
    join("drain")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    rows = project.query("SELECT attempt, state, cause, restored FROM attempt ORDER BY attempt")
    assert rows == [(1, "LOST", "lost_node", None), (2, "SUCCEEDED", "", 2)]


def test_a_cluster_that_cannot_be_joined(project: Project) -> None:
    out = project.run("sweep", "conf/sweep.yaml", "--address", "127.0.0.1:9", code=2)
    assert "orchestrate: 127.0.0.1:9: cannot join the Ray cluster" in out
    assert "Traceback" not in out
    project.env["RAY_AUTH_TOKEN"] = "d" * 64
    out = project.sweep(code=2)
    assert f"orchestrate: {project.address}: cannot join the Ray cluster" in out
    assert "RAY_AUTH_TOKEN" in out
    assert "d" * 64 not in out
    assert not project.runs.exists()
