"""`resubmit --set`: what may differ when a trial runs again, since it is no part of what the trial is. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.language import sweepfile
from orchestrator.language.identity import omitting
from orchestrator.language.references import dotted, leaves
from orchestrator.model.sweep import SweepSpec, TrialSpec

WHERE = "--set"
OF_A_TRIAL = "sweep.resources"
OF_THE_SWEEP = sweepfile.ENDURANCE
Settings = Mapping[str, Any]  # dotted key -> value


def sweep(spec: SweepSpec, settings: Settings) -> SweepSpec:
    """The sweep with these of its settings. Raises ConfigError for one that is no part of `sweep`, or is wrong."""
    known = (*OF_THE_SWEEP, "resources")
    for key in settings:
        if key.startswith("sweep.") and key.split(".")[1] not in known:
            raise ConfigError(
                "cannot be changed for trials that are there",
                where=f"{WHERE} {key}",
                fix=f"change it in the sweep file; here may be set: {', '.join(f'sweep.{name}' for name in known)}",
            )
    given = {key.removeprefix("sweep."): value for key, value in settings.items() if key.startswith("sweep.")}
    given = {key: value for key, value in given.items() if key.split(".")[0] != "resources"}
    if not given:
        return spec
    plain = dataclasses.asdict(spec)
    data = _merged({name: plain[name] for name in OF_THE_SWEEP}, given)
    return dataclasses.replace(spec, **sweepfile.endurance(data, f"{WHERE}: sweep"))


def trial(spec: SweepSpec, found: TrialSpec, settings: Settings) -> TrialSpec:
    """The trial with these resources, and values of ignored keys. Raises ConfigError for what would make another."""
    prefix = f"{OF_A_TRIAL}."
    asked = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    resources, config = found.resources, found.config
    if asked:
        plain = dataclasses.asdict(resources)
        data = _merged({name: plain[name] for name in sweepfile.RESOURCES}, asked)
        resources = sweepfile.resources(data, f"{WHERE}: {OF_A_TRIAL}")
    own = {key: value for key, value in settings.items() if key.split(".")[0] != "sweep"}
    ignored = omitting(spec.ignore)
    for key in own:
        parts = key.split(".")
        if not any(ignored(".".join(parts[:length])) for length in range(1, len(parts) + 1)):
            raise ConfigError(
                "is part of what the trial is: with another value it is another trial",
                where=f"{WHERE} {key}",
                fix="sweep it: orchestrate sweep",
            )
        if key in found.references:
            text = found.references[key]
            raise ConfigError("is read where the trial starts", where=f"{WHERE} {key}", fix=f"change {text}")
        if not any(f"{dotted(path)}.".startswith(f"{key}.") for path, _ in leaves(config)):
            raise ConfigError("the config has no such key", where=f"{WHERE} {key}", fix="orchestrate show lists them")
    return dataclasses.replace(found, resources=resources, config=_merged(config, own))


def _merged(data: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A copy with the dotted keys set."""
    copy = dict(data)
    for key, value in settings.items():
        first, _, rest = key.partition(".")
        if rest:
            below = copy.get(first)
            copy[first] = _merged(below if isinstance(below, Mapping) else {}, {rest: value})
        else:
            copy[first] = value
    return copy
