"""Recognises a sweep file of W&B, which is not supported, and shows how to write it as a `sweep` section. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from orchestrator.errors import ConfigError

_MAX_AXES = 12  # of so many the message shows how they are written


def check(data: Any, where: str) -> None:
    """Raises ConfigError if this mapping is the content of a W&B sweep file."""
    if not isinstance(data, Mapping) or "trainer" in data:
        return
    parameters = data.get("parameters")
    if "program" not in data and not (isinstance(parameters, Mapping) and "method" in data):
        return
    raise ConfigError(
        "this is a sweep file of W&B, which is not supported yet",
        where=where,
        fix=f"write it as  sweep: {_written(_section(data))}",
    )


def _section(data: Mapping[str, Any]) -> dict[str, Any]:
    """What such a file says, as our `sweep` section."""
    module = PurePosixPath(str(data.get("program") or "train.py")).with_suffix("")
    section: dict[str, Any] = {"trainer": f"{'.'.join(module.parts)}:train"}
    metric = data.get("metric")
    if isinstance(metric, Mapping) and metric.get("name"):
        mode = "max" if metric.get("goal") == "maximize" else "min"
        section["objective"] = {"metric": metric["name"], "mode": mode}
    axes = dict(_axes(data.get("parameters"), ""))
    section["axes"] = dict(list(axes.items())[:_MAX_AXES]) | ({"…": "…"} if len(axes) > _MAX_AXES else {})
    if data.get("method") != "grid":
        section["search"] = {"method": "random", "trials": data.get("run_cap") or 20}
    return section


def _axes(parameters: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, said in parameters.items() if isinstance(parameters, Mapping) else ():
        if not isinstance(said, Mapping):
            continue
        if "parameters" in said:
            yield from _axes(said["parameters"], f"{prefix}{key}.")
        elif "values" in said:
            yield f"{prefix}{key}", said["values"]
        elif "value" in said:
            yield f"{prefix}{key}", said["value"]
        elif "min" in said and "max" in said:
            interval = f"interval({said['min']}, {said['max']})"
            log = str(said.get("distribution", "")).startswith(("log_uniform_values", "q_log_uniform_values"))
            yield f"{prefix}{key}", f"tag(log, {interval})" if log else interval
        else:
            yield f"{prefix}{key}", []


def _written(value: Any) -> str:
    """In YAML's short form."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f'"{value}"' if isinstance(value, str) and "(" in value else str(value)
