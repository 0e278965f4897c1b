"""The examples in docs/sweep-file.md work as the page says."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.language import planning
from orchestrator.model.sweep import CodeRules

PAGE = (Path(__file__).parents[3] / "docs" / "sweep-file.md").read_text(encoding="utf-8")
GROUPS = {
    "model/lstm": "cells: 1",
    "model/gru": "cells: 2",
    "db/engine/small": "size: 1",
    "db/engine/large": "size: 2",
    "optimizer/SGD": "{lr: 1.0, momentum: 0.5}",
    "optimizer/adam": "{lr: 1.0, eps: 1.0}",
    "optimizer/rmsprop": "{lr: 1.0}",
}
CONFIG = """
defaults: [{model: lstm}, {db/engine: small}, {optimizer: SGD}, _self_]
lr: 1.0
betas: [0, 0]
width: 1
epochs: 1
training: {batch: 1}
data: {shuffle: true}
seed: 1
"""


def conf(root: Path, section: str) -> Path:
    for name, text in GROUPS.items():
        path = root / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    file = root / "config.yaml"
    file.write_text(CONFIG + section)
    return file


def test_the_trackers_of_the_page_are_read(tmp_path: Path) -> None:
    _, _, tracking, _ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    spec = planning.load(conf(tmp_path, f"{tracking}  trainer: train:main\n")).spec
    assert spec.tracking["wandb"] == {"project": "shop", "tags": ["spring"]}
    assert spec.tracking["jsonl"]


def test_the_code_of_the_page_is_read(tmp_path: Path) -> None:
    *_, code = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    spec = planning.load(conf(tmp_path, f"{code}  trainer: train:main\n")).spec
    assert spec.code == CodeRules(("data/vocab.txt", "assets"), ("*.mp4", "results"))


def test_the_axes_of_the_page_give_the_expected_trials(tmp_path: Path) -> None:
    section, union, *_ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    plan = planning.load(conf(tmp_path, section))
    seen = list(plan.trials())
    optimizers = 2 + 2 * 2 + 1  # momenta of SGD, rows of adam times shuffle, rmsprop
    assert len(seen) == 2 * 2 * 2 * 2 * 4 * 2 * optimizers
    adam = next(trial for trial in seen if trial.overrides["optimizer"] == "adam")
    assert list(adam.config["optimizer"]) == ["lr", "eps"]
    assert {trial.config["width"] for trial in seen} == {64, 128, 192, 256}
    assert {trial.config["epochs"] for trial in seen} == {10}
    both = planning.load(conf(tmp_path, f"sweep:\n  trainer: train:main\n{union}"))
    assert [trial.overrides["model"] for trial in both.trials()] == ["lstm", "lstm", "gru"]


def test_the_page_documents_every_key() -> None:
    from orchestrator.language.sweepfile import KEYS

    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == set(KEYS) - {"axes"}
