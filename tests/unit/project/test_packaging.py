"""The wheel contains only the orchestrator. The lock file pins versions; the project gives ranges."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    source = target / "source"
    files = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True).split(
        "\0"
    )
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(target)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_contains_all_modules_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"orchestrator", "orchestrate_sweeps"}
    assert {f"orchestrator/manifest/schema/{name}.sql" for name in ("0001", "0002", "read-0001")} <= set(names)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "orchestrator").rglob("*.py")}
    assert modules <= set(names)


def test_requirements_are_ranges(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    requirements = Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist") or []
    assert any(item.startswith("torch>=") for item in requirements)
    assert not [item for item in requirements if "==" in item.partition(";")[0]]


def test_the_lock_pins_every_package() -> None:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^ ]+( ; .+)?", line) for line in lines)
    assert "torch==2.13.0" in lines
