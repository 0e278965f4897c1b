"""What a tracker delivers to, and a sweep that has this tracker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.tracking.support import JsonLinesReceiver, Receiver, Sweep, WandbReceiver
from tests.wandb_server import Server

SETTINGS = {
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
    "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
    "WANDB_X_FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "1",
    "WANDB_INIT_TIMEOUT": "2",
    "WANDB_FINISH_TIMEOUT": "2",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    server = Server()
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody's real login
    monkeypatch.delenv("NETRC", raising=False)
    yield server
    assert not server.unknown
    server.close()


@pytest.fixture(params=["wandb", "jsonl"])
def tracker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def receiver(tracker: str, request: pytest.FixtureRequest, tmp_path: Path) -> Receiver:
    if tracker == "wandb":
        return WandbReceiver(request.getfixturevalue("server"))
    return JsonLinesReceiver(tmp_path)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where trackers find TMPDIR."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def sweep(receiver: Receiver, tmp_path: Path, temporary: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path, receiver.tracking)
    yield sweep
    sweep.discard()
    if all(process.returncode != -signal.SIGKILL for process in sweep.started):
        assert list(temporary.iterdir()) == []
