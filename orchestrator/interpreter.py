"""How we start a Python process of our own, such that no module of the user's project takes the place of another.

Also where trials find the modules of the project.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.files import PACKAGE

# An interpreter that is started with -m or -c imports from its working directory first: a project's logging.py would
# be taken for Python's. The option that prevents this came with Python 3.11, and children would inherit its variable.
_BOOT = """import sys
sys.path[:] = filter(None, sys.path)
sys.path.append(sys.argv.pop(1))
from {module} import {function}
sys.exit({function}())
"""


def import_folders(project: Path) -> tuple[Path, ...]:
    """The folders that trials import the modules of a project from, or of a copy of it."""
    source = project / "src"
    return (project, source) if source.is_dir() else (project,)


def command(module: str, function: str, *arguments: object) -> list[str]:
    """A command that calls a function of one of our modules; it finds the arguments in `sys.argv`, from 1 on."""
    boot = _BOOT.format(module=module, function=function)
    return [sys.executable, "-c", boot, PACKAGE.rpartition("/")[0], *map(str, arguments)]
