"""What Hydra tells a trial about itself: the values of `${hydra:…}` and `HydraConfig`. Plain data; Hydra is not needed.

Most of it is the same for all trials of a sweep, and is kept once, in `SweepSpec.hydra`. A trial keeps its own part:
its choices of options, its overrides, and what its options change in the `hydra` section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Section = dict[str, Any]
_READS = re.compile(r"\$\{\s*hydra\s*:\s*['\"]?([^{}$'\"]+?)['\"]?\s*\}")
UNKNOWN = "???"  # so Hydra writes a value that is not known yet


def difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> Section:
    """What `added` sets in `base` to get `other`, which has all of its keys."""
    found: Section = {}
    for key, value in other.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if below := difference(before, value):
                found[key] = below
        elif key not in base or repr(before) != repr(value):
            found[key] = value
    return found


def section(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Section:
    """The `hydra` section of one trial, as far as it is known before the trial starts. `own`: see `TrialSpec.told`."""
    whole = added(shared.get("config", {}), own.get("config", {}))
    choices = own.get("choices", UNKNOWN)
    facts: Section = {
        "job": {"override_dirname": own.get("override_dirname", UNKNOWN)},
        "runtime": {"choices": choices},
    }
    if "task" in own:
        facts["overrides"] = {"task": own["task"]}
    return added(whole, facts)


def added(base: Mapping[str, Any], more: Mapping[str, Any]) -> Section:
    """A copy with values set, at any depth; nothing else changes."""
    result = dict(base)
    for key, value in more.items():
        before = result.get(key)
        result[key] = added(before, value) if isinstance(value, Mapping) and isinstance(before, Mapping) else value
    return result


# What is known only once a trial starts.
UNTIL_THE_START: Section = {
    "job": dict.fromkeys(("num", "id"), UNKNOWN),
    "runtime": dict.fromkeys(("cwd", "output_dir"), UNKNOWN),
    "run": {"dir": UNKNOWN},
    "sweep": dict.fromkeys(("dir", "subdir"), UNKNOWN),
}


def paths_read(text: str) -> list[str]:
    """The paths that `${hydra:path}` reads in a text, as far as they are plain text."""
    return _READS.findall(text)


def has(whole: Mapping[str, Any], path: str) -> bool:
    """Whether a complete section has a value at a path, which may not be known yet."""
    node: Any = whole
    for part in filter(None, re.split(r"[.\[\]]+", path)):
        if node == UNKNOWN or (isinstance(node, str) and "${" in node):
            return True
        if isinstance(node, list) and part.isdigit():
            node = node[int(part)] if int(part) < len(node) else None
            continue
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def changes_directory(shared: Mapping[str, Any], chdir: Any) -> Any:
    """Whether a trial starts in `run.dir`: `hydra.job.chdir`, or what the app's version of Hydra does without it."""
    return shared.get("version_base") == "1.1" if chdir is None else chdir
