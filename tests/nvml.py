"""A driver library whose devices stand in a text file, for tests on machines without a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.executors import gpus

Driver = Callable[..., None]
UUIDS = [f"GPU-{letter * 4}-{index}" for index, letter in enumerate("abcd")]
FOUR = [f"gpu {uuid} NVIDIA_L4 23034 3 - -" for uuid in UUIDS]
SOURCE = Path(__file__).parent / "fixtures" / "nvml" / "fake_nvml.c"


def build(folder: Path) -> Path:
    """Make a libnvidia-ml.so.1 in `folder`; skips the test where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the driver library with")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{target.name}", "-o", target, SOURCE], check=True)
    return target


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libnvidia-ml.so.1."""
    folder = tmp_path_factory.mktemp("nvml")
    build(folder)
    return folder


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Sets the devices that the driver tells of, a line each; until then there is no driver."""
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "devices"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))  # for other processes; this one has begun already
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    ctypes.CDLL(str(library / "libnvidia-ml.so.1"), mode=ctypes.RTLD_GLOBAL)  # found by its name from now on
    gpus._uuid_by_name.cache_clear()

    def install(devices: Sequence[str] = FOUR) -> None:
        (tmp_path / "devices").write_text("".join(f"{device}\n" for device in devices))

    yield install
    gpus._uuid_by_name.cache_clear()
