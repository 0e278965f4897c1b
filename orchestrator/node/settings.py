"""The `cfg` that a trainer gets: plain data as OmegaConf, and the references that only a node can resolve."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.errors import ConfigError
from orchestrator.model import Order

_OPENING = re.compile(r"(\\*)\$\{")


def build(order: Order, files: Path) -> DictConfig:
    """A private, writable config. Only the paths in `order.references` are interpolated; other text is literal."""
    config = create(order.config)
    if order.references:
        _register_resolvers(order, files)
    for key, text in order.references.items():
        OmegaConf.update(config, key, text, force_add=True)
    for key, text in order.references.items():
        try:
            value = OmegaConf.select(config, key, throw_on_missing=True)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{text} does not resolve on this node: {reason}", where=key) from None
        OmegaConf.update(config, key, escape(value), force_add=True)
    OmegaConf.set_struct(config, True)
    return config


def create(data: Mapping[str, Any]) -> DictConfig:
    """Plain data as OmegaConf, all text literal."""
    config: DictConfig = OmegaConf.create(escape(data))
    return config


def escape(value: Any) -> Any:
    """The same data, written so that OmegaConf reads `${` as text."""
    if isinstance(value, str):
        return _OPENING.sub(lambda found: found[1] * 2 + r"\${", value) if "${" in value else value
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape(item) for item in value]
    return value


def imitate_hydra(order: Order, files: Path) -> None:
    """For a trainer that is a Hydra app: what `HydraConfig.get()` and Hydra's logging would give it."""
    if "hydra.core.hydra_config" not in sys.modules:
        return
    node = OmegaConf.structured(sys.modules["hydra.conf"].HydraConf)
    for key, value in _job(order, files).items():
        for name, item in value.items():
            OmegaConf.update(node, f"{key}.{name}", item)
    holder = sys.modules["hydra.core.hydra_config"].HydraConfig.instance()
    holder.cfg = OmegaConf.create({"hydra": node})
    form = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stdout)


def _job(order: Order, files: Path) -> dict[str, dict[str, Any]]:
    """A trial in Hydra's words."""
    name = order.trainer.partition(":")[0].rpartition(".")[2]
    return {
        "job": {"num": 0, "id": order.trial_id, "name": name},
        "runtime": {"cwd": os.getcwd(), "output_dir": str(files)},
        "run": {"dir": str(files)},
    }


def _register_resolvers(order: Order, files: Path) -> None:
    """Hydra's own `now` and `hydra` as a job of ours sees them; `oc.env` and its kin come with OmegaConf."""
    hydra = OmegaConf.create(_job(order, files))

    def look_up(path: str) -> Any:
        value = OmegaConf.select(hydra, path)
        if value is None:
            raise KeyError(f"hydra.{path} has no meaning in a trial")
        return value

    now = time.localtime()
    OmegaConf.register_new_resolver("now", lambda form: time.strftime(form, now), replace=True)
    OmegaConf.register_new_resolver("hydra", look_up, replace=True)
