"""`resubmit --set`: changes to settings that are not part of a trial's identity. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.language import sweepfile
from orchestrator.language.identity import key_matcher
from orchestrator.language.references import dotted, leaves
from orchestrator.model.sweep import SweepSpec, TrialSpec

WHERE = "--set"
TRIAL_RESOURCES = "sweep.resources"
SWEEP_KEYS = sweepfile.ENDURANCE
Settings = Mapping[str, Any]  # dotted key -> value


def sweep(spec: SweepSpec, settings: Settings) -> SweepSpec:
    """The sweep with the given `sweep.*` settings. Raises ConfigError if one cannot be changed or is wrong."""
    known = (*SWEEP_KEYS, "resources")
    for key in settings:
        if key.startswith("sweep.") and key.split(".")[1] not in known:
            raise ConfigError(
                "cannot be changed for existing trials",
                where=f"{WHERE} {key}",
                fix=f"change it in the sweep file; --set accepts: {', '.join(f'sweep.{name}' for name in known)}",
            )
    given = {key.removeprefix("sweep."): value for key, value in settings.items() if key.startswith("sweep.")}
    given = {key: value for key, value in given.items() if key.split(".")[0] != "resources"}
    if not given:
        return spec
    plain = dataclasses.asdict(spec)
    data = _merged({name: plain[name] for name in SWEEP_KEYS}, given)
    return dataclasses.replace(spec, **sweepfile.endurance(data, f"{WHERE}: sweep"))


def trial(spec: SweepSpec, old: TrialSpec, settings: Settings) -> TrialSpec:
    """The trial with the given resources and ignored keys. Raises ConfigError for a key of its identity."""
    prefix = f"{TRIAL_RESOURCES}."
    asked = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    resources, config = old.resources, old.config
    if asked:
        plain = dataclasses.asdict(resources)
        data = _merged({name: plain[name] for name in sweepfile.RESOURCES}, asked)
        resources = sweepfile.resources(data, f"{WHERE}: {TRIAL_RESOURCES}")
    own = {key: value for key, value in settings.items() if key.split(".")[0] != "sweep"}
    ignored = key_matcher(spec.ignore)
    for key in own:
        parts = key.split(".")
        if not any(ignored(".".join(parts[:length])) for length in range(1, len(parts) + 1)):
            raise ConfigError(
                "is part of the trial's identity: with another value it would be another trial",
                where=f"{WHERE} {key}",
                fix="run the new value as a trial of its own: orchestrate sweep",
            )
        if key in old.references:
            text = old.references[key]
            raise ConfigError("is resolved when the trial starts", where=f"{WHERE} {key}", fix=f"change {text}")
        if not any(f"{dotted(path)}.".startswith(f"{key}.") for path, _ in leaves(config)):
            raise ConfigError("the config has no such key", where=f"{WHERE} {key}", fix="orchestrate show lists them")
    return dataclasses.replace(old, resources=resources, config=_merged(config, own))


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
