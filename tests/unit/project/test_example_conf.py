"""The configs in `conf`: every option composes, and the sweep files name only options and keys that exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from orchestrator.cli import trials
from orchestrator.model.sweep import SweepSpec

CONF = Path(__file__).parents[3] / "conf"
GROUPS = {folder.name: sorted(f.stem for f in folder.glob("*.yaml")) for folder in CONF.iterdir() if folder.is_dir()}
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def test_the_groups_and_their_options() -> None:
    assert set(GROUPS) == {"data_loader", "dataset", "embeddings", "model", "optimizer", "training_settings"}
    assert GROUPS["dataset"] == ["all", "canadian", "us"]
    assert GROUPS["embeddings"] == ["fast_text", "fast_text_character"]
    assert GROUPS["model"] == ["bi_lstm", "bi_lstm_bidirectionnal", "lstm", "lstm_bidirectionnal"]
    assert GROUPS["optimizer"] == ["SGD", "adam"]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_resolves(group: str, option: str) -> None:
    cfg = config("sweep", f"{group}={option}")
    assert OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if group != "dataset":  # `dataset: all` is composed from other options
        assert cfg[group] == OmegaConf.load(CONF / group / f"{option}.yaml")


@pytest.mark.parametrize(("option", "keys"), [("SGD", {"lr", "momentum"}), ("adam", {"lr", "betas"})])
def test_an_optimizer_has_only_its_own_keys(option: str, keys: set[str]) -> None:
    cfg = config("sweep", f"optimizer={option}").optimizer
    assert set(cfg) == {"_target_", *keys}
    optimizer = instantiate(cfg, nn.Linear(1, 1).parameters(), _convert_="all")
    assert keys <= set(optimizer.defaults)


def test_dataset_all_is_us_and_canadian() -> None:
    sources = config("sweep", "dataset=all").dataset.sources
    assert sources.us == config("sweep", "dataset=us").dataset.sources.us
    assert sources.canadian == config("sweep", "dataset=canadian").dataset.sources.canadian


def test_the_axes_name_existing_options_and_keys() -> None:
    axes = config("sweep").sweep.axes
    assert list(axes.embeddings) == GROUPS["embeddings"]
    assert sorted(axes.model) == GROUPS["model"]
    for option, scoped in axes.optimizer.items():
        cfg = config("sweep", f"optimizer={option}").optimizer
        assert {key.strip() for keys in scoped for key in keys.split(",")} <= set(cfg)


def test_commands_of_the_readme_and_the_help_name_options_and_keys_of_the_example() -> None:
    text = (CONF.parent / "README.md").read_text(encoding="utf-8") + "\n".join(trials.EXAMPLES)
    conditions = dict.fromkeys(re.findall(r"--where (\w+)=([\w,]+)", text))
    assert conditions
    for group, options in conditions:
        assert set(options.split(",")) <= set(GROUPS[group]), f"{group}={options}"
    for line in re.findall(r"orchestrate (?:try|plan|sweep) conf/sweep.yaml(( [\w.]+=[\w.,]+)+)", text):
        assert config("sweep", *line[0].split())


@pytest.mark.parametrize("name", ["sweep", "toy"])
def test_the_sweep_section_has_known_keys_and_names_an_existing_seed(name: str) -> None:
    cfg = config(name)
    assert set(cfg.sweep) <= {field.name for field in fields(SweepSpec)}
    assert isinstance(OmegaConf.select(cfg, cfg.sweep.get("seed", "seed")), int)
