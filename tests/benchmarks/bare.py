"""What the machine allows, without an orchestrator: a process of its own, started by the benchmarks.

`forks N`: forks, one small torch operation, `_exit`, N of them on each core, from a process with the same modules,
settings and rehearsals as the one that our trials are forked from. Prints the rate of all cores together.
`first`: `ray.init` as we do it, `import torch` and the same modules, one after the other. Prints when it is done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


def preload() -> None:
    """What a trial's parent has loaded, torch with what it leaves for later, and done: some small operations."""
    from orchestrator.node.inside import config, seeding

    config.create({})
    seeding.warm_torch()


def forks(count: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, __file__, "fork-here", str(count)]
    env = {**os.environ, **ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
    parents = [
        subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in cores
    ]
    for parent in parents:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
    started = time.perf_counter()
    for parent in parents:  # all of them start now
        assert parent.stdin is not None
        parent.stdin.close()
    codes = [parent.wait() for parent in parents]
    assert not any(codes), codes
    print(count * len(parents) / (time.perf_counter() - started))


def fork_here(count: int) -> None:
    import gc

    preload()
    import torch

    from orchestrator.node.shared import memory_pages

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    gc.collect()
    gc.freeze()
    memory_pages.collapse_into_huge_pages()
    print("ready", flush=True)
    sys.stdin.read()
    for _ in range(count):
        pid = os.fork()
        if not pid:
            os._exit(int(float(torch.ones(8).sum()) != 8.0))
        assert os.waitpid(pid, 0)[1] == 0


def first() -> None:
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="b" * 64, RAY_USAGE_STATS_ENABLED="0")
    import ray

    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=128 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    preload()
    print(time.time(), flush=True)


if __name__ == "__main__":
    word, *rest = sys.argv[1:]
    {"forks": forks, "fork-here": fork_here, "first": first}[word](*map(int, rest))
