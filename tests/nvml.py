"""A driver library whose devices stand in a text file, for tests on machines without a GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "fixtures" / "nvml" / "fake_nvml.c"


def build(folder: Path) -> Path:
    """Make a libnvidia-ml.so.1 in `folder`; skips the test where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the driver library with")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{target.name}", "-o", target, SOURCE], check=True)
    return target
