"""A W&B run of the trainer's own learns how its trial ended."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.support import order, run

HEADER, BLOCK, FULL, LAST = 7, 32768, 1, 4

TRAINER = """
import os, signal, sys, wandb

def train(cfg, run):
    settings = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True)
    wandb.init(mode="offline", project="mine", dir=run.dir, settings=settings)
    wandb.log({"loss": 0.5})
    if cfg.ends == "raises":
        raise ValueError("wrong")
    if cfg.ends == "is asked to end":
        os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "tracked.py").write_text(TRAINER)
    return folder


@pytest.mark.parametrize(("ends", "exit_code"), [("raises", 1), ("is asked to end", 143), ("returns", 0)])
def test_it_records_the_exit_code(
    tmp_path: Path, project: Path, zygote_pool: ZygotePool, ends: str, exit_code: int
) -> None:
    wanted = order(tmp_path, "tracked:train", {"ends": ends}, import_path=(str(project),))
    result = run(wanted, zygote_pool)
    assert result.started.method == "fork"
    assert result.ended.exit_code == exit_code
    assert result.log.count("ValueError: wrong") == (ends == "raises")
    (file,) = Path(wanted.folder).rglob("*.wandb")
    assert recorded_exit_codes(file) == [exit_code]


def recorded_exit_codes(file: Path) -> list[int]:
    codes = []
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        codes += [record.exit.exit_code] if record.HasField("exit") else []
    return codes


def records(data: bytes) -> Iterator[bytes]:
    """The records of a `.wandb` file, which is a log as LevelDB writes it: blocks that hold pieces of records."""
    position, whole = HEADER, b""
    while position < len(data):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block is empty
            position += BLOCK - position % BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + HEADER : position + HEADER + size]
        position += HEADER + size
        if kind in (FULL, LAST):
            yield whole
            whole = b""
