"""A trial of a Hydra application finds what Hydra would give it: its values, its files, variables and directory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.language import planning
from orchestrator.model.order import Order
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.language.conf_trees import write
from tests.unit.node.support import order, run

APP = """
import json, os, hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd, to_absolute_path
from omegaconf import OmegaConf

@hydra.main(VERSION, config_name="sweep", config_path="conf")
def main(cfg):
    if "obs" in cfg:
        cfg.obs.shape = [3, 4]
    told = HydraConfig.get()
    with open(os.environ["FACTS"], "w") as file:
        json.dump({
            "cwd": os.getcwd(), "original": get_original_cwd(), "absolute": to_absolute_path("x"),
            "choices": OmegaConf.to_container(told.runtime.choices), "dir": told.runtime.output_dir,
            "job": [told.job.num, told.job.id, told.job.name, told.job.override_dirname, told.job.config_name],
            "task": list(told.overrides.task), "mode": told.mode.name, "version": told.runtime.version_base,
            "run": told.run.dir, "sweep": os.path.join(told.sweep.dir, told.sweep.subdir), "help": told.help.app_name,
            "env": [os.environ.get("ONE"), os.environ.get("TWO")], "hydra" : "hydra" in cfg,
            "cfg": OmegaConf.to_container(cfg, resolve=True),
        }, file)
    with open("relative.txt", "w") as file:
        file.write("here")
    return 1
"""
CONF = {
    "sweep.yaml": "defaults: [{db: mysql}, _self_]\nlr: 0\nhome: '${hydra:runtime.output_dir}/${name}'\n"
    "name: '${hydra:runtime.choices.db}'\ntext: '\\${lr}'\napi_key: '${oc.env:MY_KEY}'\n"
    "hydra: {job: {env_set: {ONE: 'a-${lr}', TWO: '${oc.env:MY_KEY}', FACTS: FILE}}, verbose: true}\n"
    "sweep: {trainer: 'app:main', axes: {db: [mysql, sqlite], lr: [1, 'x y']}}\n",
    "db/mysql.yaml": "port: 1\n",
    "db/sqlite.yaml": "file: x\n",
}


def ordered(folder: Path, version: str, files: dict[str, str], position: int) -> Order:
    """The order for one trial of an app of this version."""
    write(folder, {"app.py": APP.replace("VERSION, ", version)})
    text = files["sweep.yaml"].replace("FILE", str(folder / "facts.json"))
    plan = planning.load(write(folder / "conf", {**files, "sweep.yaml": text}), project=folder)
    trial = list(plan.trials())[position]
    known = order(folder, "app:main", import_path=(str(folder),), cwd=str(folder), number=position)
    changed = {"config": trial.config, "references": trial.references, "hydra": plan.spec.hydra}
    return replace(known, **changed, hydra_own=trial.told())


def seen(folder: Path) -> Any:
    return json.loads((folder / "facts.json").read_text())


@pytest.mark.parametrize("version", ["", "version_base=None, "])
def test_a_trial_finds_what_hydra_gives_a_job(
    version: str, tmp_path: Path, zygote_pool: ZygotePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    zygote_pool.close()
    monkeypatch.setenv("MY_KEY", "hidden")
    wanted = ordered(tmp_path, version, CONF, 3)
    assert run(wanted, zygote_pool).ended.failure is None
    facts, files = seen(tmp_path), f"{wanted.folder}/files"
    assert facts["cwd"] == (str(tmp_path) if version else files)
    assert (facts["original"], facts["absolute"]) == (str(tmp_path), f"{tmp_path}/x")
    assert facts["dir"] == facts["run"] == facts["sweep"] == files
    assert {key: facts["choices"][key] for key in ("db", "hydra/launcher")} == {
        "db": "sqlite",
        "hydra/launcher": "basic",
    }
    assert facts["job"] == [3, "0123456789ab", "app", "db=sqlite,lr='x y'", "sweep"]
    assert facts["task"] == ["db=sqlite", "lr='x y'"]
    assert (facts["mode"], facts["version"]) == ("MULTIRUN", "1.3" if version else "1.1")
    assert (facts["env"], facts["hydra"], facts["help"]) == (["a-x y", "hidden"], False, "app")
    assert facts["cfg"]["home"] == f"{files}/sqlite"
    assert (facts["cfg"]["api_key"], facts["cfg"]["text"]) == ("hidden", "${lr}")

    kept = Path(files) / ".hydra"
    config, hydra, overrides = (
        yaml.safe_load((kept / f"{n}.yaml").read_text()) for n in ("config", "hydra", "overrides")
    )
    assert config["api_key"] == "${oc.env:MY_KEY}"
    assert config["db"] == {"file": "x"}
    assert config["text"] == "\\${lr}"
    assert hydra["hydra"]["job"]["env_set"]["TWO"] == "${oc.env:MY_KEY}"
    assert hydra["hydra"]["runtime"]["output_dir"] == files
    assert overrides == ["db=sqlite", "lr='x y'"]
    assert not any("hidden" in file.read_text() for file in kept.iterdir())


def test_what_the_trainer_fills_is_left_to_it(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    body = (
        "lr: 0\nobs: {shape: '???'}\ncritic: {shape: '${obs.shape}', net: {of: '${critic.shape}'}}\n"
        "hydra: {job: {env_set: {FACTS: FILE}}}\n"
        "sweep: {trainer: 'app:main', allow_missing: [obs.shape], axes: {lr: [1, 2]}}\n"
    )
    wanted = ordered(tmp_path, "version_base='1.2', ", {"sweep.yaml": body}, 1)
    assert run(wanted, zygote_pool).ended.failure is None
    assert seen(tmp_path)["cfg"] == {
        "lr": 2,
        "obs": {"shape": [3, 4]},
        "critic": {"shape": [3, 4], "net": {"of": [3, 4]}},
    }


def test_one_trial_does_not_see_another_ones_variables(tmp_path: Path, zygote_pool: ZygotePool) -> None:
    files = {"sweep.yaml": CONF["sweep.yaml"].replace("TWO: '${oc.env:MY_KEY}', ", "").replace("MY_KEY", "HOME")}
    for position, value in ((0, "a-1"), (1, "a-x y")):
        assert (
            run(ordered(tmp_path, "version_base=None, ", {**CONF, **files}, position), zygote_pool).ended.failure
            is None
        )
        assert seen(tmp_path)["env"] == [value, None]
