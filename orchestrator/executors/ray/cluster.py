"""Starts a Ray cluster of our own, or joins one that runs already."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RayError
from ray.job_config import JobConfig

import orchestrator
from orchestrator.errors import ClusterError
from orchestrator.executors.ray.watch import Look
from orchestrator.node.launch import zygote_sharing
from orchestrator.node.shared import cgroups

# Ray prints events of its nodes to stdout, even with log_to_driver=False, and has no setting for it. We report them.
ray._private.worker.print_to_stdstream = lambda *_, **__: None

OBJECT_STORE = 128 * 2**20  # bytes; events are small
KNOCK = 10.0  # seconds


class _Job(JobConfig):  # type: ignore[misc]
    """Our job, whose workers import from where Python does.

    Ray would put our working directory first: a module of the project would then take the place of one of Python's, of
    Ray's or of ours. It leaves that out for a job with a working directory of its own.
    """

    def __init__(self) -> None:
        root = str(Path(orchestrator.__file__).parent.parent)
        super().__init__(_py_driver_sys_path=[root] if root == os.getcwd() else [])  # it is run from its source

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def start_embedded(ids: tuple[str, ...], folder: Path) -> None:
    """A Ray of our own on loopback, with the token that `environment.prepare` has made; `folder` is for its files."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ids)
    try:
        ray.init(
            address="local",
            job_config=_Job(),
            num_cpus=cgroups.cpus(),
            num_gpus=len(ids),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
    except (RayError, RuntimeError, OSError, TimeoutError) as error:
        raise ClusterError(
            f"Ray does not start: {first_line(error)}",
            where="embedded Ray",
            fix=f"{folder}/session_latest/logs may say why; {shutil.disk_usage(folder).free >> 20} MiB are free there",
        ) from error


def _knock(address: str) -> None:
    """Fail at once if nothing listens there: Ray itself tries for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a scheme that only Ray understands
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise ClusterError(
            f"cannot join the Ray cluster: {error.strerror or error}",
            where=address,
            fix="is it running, and reachable from here? Without --address and RAY_ADDRESS, Ray starts here",
        ) from error


def _show_token(address: str) -> None:
    """Fail at once if the token is wrong: the server refuses it at once, but Ray keeps trying for 20 s."""
    if "//" not in address and ":" in address:
        GcsClient(address=address)  # raises AuthenticationError, a RayError


@contextmanager
def _quietly() -> Iterator[None]:
    """Drop what is written to stderr meanwhile: Ray's C++ code announces its log level there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def join(address: str) -> None:
    _knock(address)
    try:
        with _quietly():
            _show_token(address)
            ray.init(
                address=address,
                job_config=_Job(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={
                    "py_modules": [str(Path(orchestrator.__file__).parent)],
                    "env_vars": {zygote_sharing.NAME: os.environ[zygote_sharing.NAME]},
                },
            )
    except (RayError, RuntimeError, OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"cannot join the Ray cluster: {first_line(error)}",
            where=address,
            fix="is it running, and is its token here (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token)?",
        ) from error


def head() -> tuple[str, int]:
    """Where the head of the cluster that we have joined listens."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return host.strip("[]"), int(port)


def look() -> Look:
    """The nodes as they are now. Raises ConnectionError if the head does not answer."""
    try:
        draining = set(ray._private.state.state.get_draining_nodes())
        return Look([node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining], draining)
    except RayError as error:
        raise ConnectionError(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """The first line of Ray's message, without its long advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].partition(" This can happen")[0][:300] if lines else type(error).__name__
