"""Gives a trial, as it starts, what its config keeps as references, and what Hydra would give it.

That is `HydraConfig`, the files below `.hydra`, and of the `hydra` section what takes effect in a job: environment
variables and the working directory.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import (
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from orchestrator.errors import ConfigError
from orchestrator.language import hydra_values
from orchestrator.language.literal import escape
from orchestrator.model.order import Order
from orchestrator.node.shared.trial_paths import TrialPaths

# These are for the trainer's own code to mend: its functions register a resolver, or fill in a value.
_FOR_THE_TRAINER = (UnsupportedInterpolationType, InterpolationToMissingValueError)


def imitate_logging() -> None:
    """Hydra's logging, if the trainer has imported Hydra."""
    if _has_hydra():
        form = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
        logging.basicConfig(level=logging.INFO, format=form, stream=sys.stdout)


def enter(config: DictConfig, order: Order, paths: TrialPaths) -> None:
    """Do all this in the trial's process. Raises ConfigError if a reference does not resolve here."""
    if not (order.references or order.hydra or _has_hydra()):
        return
    tree = _tree(order, paths)
    _register_resolvers(tree)
    if order.hydra:
        names = _select(tree, "hydra.job.env_set") or ()
        os.environ.update({str(name): str(_select(tree, f"hydra.job.env_set.{name}")) for name in names})
    _resolve(config, tree, order.references)
    if _has_hydra():
        _set_hydra_config(tree)
    if order.hydra:
        _apply(tree, order, paths)


def _has_hydra() -> bool:
    return "hydra.core.hydra_config" in sys.modules


def _tree(order: Order, paths: TrialPaths) -> DictConfig:
    """The config as it was composed, with references as interpolations and the complete `hydra` section."""
    tree: DictConfig = OmegaConf.create(escape(order.config))
    for key, text in order.references.items():
        OmegaConf.update(tree, key, text, force_add=True)
    section = hydra_values.section(order.hydra, order.hydra_own)
    node = _typed(hydra_values.added(section, _here(order, paths, section)))
    with flag_override(tree, "no_deepcopy_set_nodes", True):
        tree["hydra"] = node
    return tree


def _typed(section: hydra_values.Section) -> DictConfig:
    """A `hydra` section as a config; where the trainer has Hydra, of the type that its code expects."""
    if not _has_hydra():
        return OmegaConf.create(section)
    node: DictConfig = OmegaConf.structured(sys.modules["hydra.conf"].HydraConf)
    OmegaConf.set_struct(node, False)  # some of Hydra's own configs have more keys
    node.merge_with(section)
    OmegaConf.set_struct(node, True)
    return node


def _here(order: Order, paths: TrialPaths, section: Mapping[str, Any]) -> hydra_values.Section:
    """What Hydra says of this trial that is known only now."""
    name = section.get("job", {}).get("name") or order.trainer.module.rpartition(".")[2]
    return {
        "job": {"num": order.number, "id": order.trial_id, "name": name},
        "runtime": {"cwd": os.getcwd(), "output_dir": str(paths.files)},
        "run": {"dir": str(paths.files)},
        "sweep": {"dir": str(paths.root), "subdir": paths.files.name},
    }


def _register_resolvers(tree: DictConfig) -> None:
    """Register Hydra's `now` and `hydra` for this trial; `oc.env` and the like come with OmegaConf."""
    section: Any = OmegaConf.to_container(tree.hydra)

    def look_up(path: str) -> Any:
        if not hydra_values.has(section, path):
            raise KeyError(f"hydra.{path} is not defined in a trial")
        return OmegaConf.select(tree.hydra, path)

    now = time.localtime()
    OmegaConf.register_new_resolver("now", lambda form: time.strftime(form, now), replace=True)
    OmegaConf.register_new_resolver("hydra", look_up, replace=True)


def _resolve(config: DictConfig, tree: DictConfig, references: Mapping[str, str]) -> None:
    """Set each key of `references` to what its text resolves to; those that need the trainer's code stay so."""
    OmegaConf.set_struct(config, False)
    for key, text in references.items():
        try:
            value = escape(OmegaConf.select(tree, key, throw_on_missing=True))
        except _FOR_THE_TRAINER:
            value = text
        except OmegaConfBaseException as error:
            raise _unresolved(key, text, error) from None
        OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.set_struct(config, True)


def _set_hydra_config(tree: DictConfig) -> None:
    """Set `HydraConfig`. Its interpolations may refer to the trial's config, as under Hydra itself."""
    sys.modules["hydra.core.hydra_config"].HydraConfig.instance().set_config(tree)


def _apply(tree: DictConfig, order: Order, paths: TrialPaths) -> None:
    """Write the files and change directory, as Hydra does before it calls a job."""
    folder = _select(tree, "hydra.output_subdir")
    if folder is not None and _has_hydra():
        paths.make(paths.files)
        _write_files(tree, paths.files / folder)
    if hydra_values.changes_directory(order.hydra, _select(tree, "hydra.job.chdir")):
        paths.make(paths.files)
        os.chdir(paths.files)


def _write_files(tree: DictConfig, folder: Path) -> None:
    """The files that Hydra leaves beside a job's output. References stay references, so that no secret is written."""
    folder.mkdir(parents=True, exist_ok=True)
    task = OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"])
    files = {"config": task, "hydra": {"hydra": tree.hydra}, "overrides": tree.hydra.overrides.task}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")


def _select(tree: DictConfig, key: str) -> Any:
    """A value of the `hydra` section, resolved."""
    try:
        return OmegaConf.select(tree, key)
    except OmegaConfBaseException as error:
        raise _unresolved(key, "its value", error) from None


def _unresolved(key: str, text: str, error: Exception) -> ConfigError:
    return ConfigError(f"{text} does not resolve on this node: {str(error).splitlines()[0]}", where=key)
