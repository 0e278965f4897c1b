"""The config of every trial equals the result of Hydra's `compose` for the same overrides."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from orchestrator.language import planning
from orchestrator.language.identity import canonical
from orchestrator.language.planning import SweepPlan
from tests.unit.language.conf_trees import SWEEP, composed, line, quoted, write

GROUPS = ("model", "optimizer", "data", "db", "db/engine", "optimizer@train.opt", "experiment", "extra", "combo")


@pytest.fixture(autouse=True)
def _no_global_hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


@dataclass(frozen=True)
class Tree:
    """A config folder whose first file is the sweep file, and what the comparison with Hydra needs."""

    files: dict[str, str]
    sigils: dict[str, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    trials: int = 0
    fast: bool | None = None  # whether templates are used; None: not checked


def check(file: Path, plan: SweepPlan, fixed: Sequence[str] = (), sigils: dict[str, str] | None = None) -> int:
    """Compare every trial with Hydra. Returns the number of trials."""
    count = 0
    for trial in plan.trials():
        overrides = [
            line(key, value, GROUPS, (sigils or {}).get(key, ""))
            for key, value in trial.overrides.items()
            if value is not None or key not in (sigils or {})
        ]
        expected = composed(file, [*fixed, *overrides])
        assert canonical(trial.config) == canonical(expected), overrides
        count += 1
    return count


BASE = {
    "model/lstm.yaml": "name: lstm\nhidden: 64\nlayers: [1, 2]\n",
    "model/gru.yaml": "name: gru\nhidden: 32\ngates: {a: 1, b: [1, {c: 2}]}\n",
    "optimizer/SGD.yaml": "name: sgd\nlr: 0.1\nmomentum: 0.9\n",
    "optimizer/adam.yaml": "name: adam\nlr: 1e-3\nbetas: [0.9, 0.999]\n",
}
HEAD = "defaults: [{model: lstm}, {optimizer: SGD}, _self_]\n"

TREES = {
    "groups, scoped and linked axes": Tree(
        {
            "sweep.yaml": HEAD
            + "seed: 1\n"
            + SWEEP
            + "    model: [lstm, gru]\n    optimizer:\n      SGD: {lr: [0.1, 1.0]}\n      adam:\n"
            "        lr, betas: [[1e-3, [0.9, 0.999]], [0.01, [0.8, 0.99]]]\n",
            **BASE,
        },
        trials=8,
        fast=True,
    ),
    "interpolations that depend on swept values": Tree(
        {
            "sweep.yaml": HEAD + "seed: 1\na: ${optimizer.lr}\nb: ${a}\nc: x-${b}-${seed}-${model.name}\n"
            "d: {e: '${..seed}', f: ['${optimizer.lr}', '${d.e}', {g: '${c}'}]}\nw: ${model}\n"
            + SWEEP
            + "    optimizer.lr: [0.5, 1e-5, 1, true, null, text, -0.0]\n    seed: [1, 2]\n",
            **BASE,
        },
        trials=14,
        fast=True,
    ),
    "an interpolation of a container with a swept value": Tree(
        {
            "sweep.yaml": HEAD + "copy: ${optimizer}\nlr: ${copy.lr}\n" + SWEEP + "    optimizer.lr: [0.5, 0.7]\n",
            **BASE,
        },
        trials=2,
        fast=False,
    ),
    "interpolation of a swept list": Tree(
        {
            "sweep.yaml": HEAD + "x: [1, 2]\ny: ${x}\nz: 'a ${x}'\n" + SWEEP + "    x: [[3], [4, [5]], 6, []]\n",
            **BASE,
        },
        trials=4,
    ),
    "literals": Tree(
        {
            "sweep.yaml": HEAD
            + "x: 0\ny: ${x}\n"
            + SWEEP
            + "    x: [010, 0o10, 0x1f, 1e-3, 1e3, .5, 1_000, 1.0, 1, true, 'true', 'null', null, 'on', '1e-3', '',"
            + " .inf, -.inf, 'it''s', 'a\\', 'a\\''b', \"new\\nline\", \"tab\\t\", 'a,b', '{a}', ' pad ', '$x', 'é☃', "
            + "'a=b', '[x', '~', '010', 'x\\\\', 123456789012345678901234567890, 2026-01-02]\n",
            **BASE,
        },
        trials=35,
        fast=True,
    ),
    "dict values, deletes and interpolations in values": Tree(
        {
            "sweep.yaml": HEAD
            + "a: {b: 1, c: {d: 2}}\nx: 0\nhere: ${a.b}\n"
            + SWEEP
            + "    a: [{b: 5}, {c: {d: 7}}]\n    x: ['${seed}', '${a.b}', 3]\n",
            **BASE,
        },
        sigils={},
        fixed=("~model.hidden", "+seed=4", "optimizer={lr: 3}"),
        trials=6,
    ),
    "resolvers": Tree(
        {
            "sweep.yaml": HEAD + "x: 2\nn: x\np: ${oc.env:TREE_HOME}/${x}\nq: \"${oc.decode:'${x}'}\"\nr: ${${n}}\n"
            "s: ${oc.select:nope,${x}}\n"
            "t: ${tests.twice:${x}}\nk: ${oc.dict.keys:model}\n" + SWEEP + "    x: [1, 2]\n",
            **BASE,
        },
        trials=2,
        fast=False,
    ),
    "a constant of the environment": Tree(
        {
            "sweep.yaml": HEAD
            + "x: 2\np: ${oc.env:TREE_HOME}\nq: ${oc.env:TREE_NOT,none}/${p}\n"
            + SWEEP
            + "    x: [1, 2]\n",
            **BASE,
        },
        trials=2,
        fast=True,
    ),
    "escaped interpolations stay text": Tree(
        {"sweep.yaml": HEAD + "x: 1\ny: '\\${x}'\n" + SWEEP + "    x: [1, 2]\n", **BASE}, trials=2, fast=False
    ),
    "_self_ first and last, nested defaults, packages": Tree(
        {
            "sweep.yaml": "defaults: [_self_, {db: mysql}, {optimizer@train.opt: SGD}, {model: lstm}]\n"
            "db: {port: 1, size: 0}\ntrain: {opt: {lr: 7}}\n"
            + SWEEP
            + "    db:\n      mysql: {engine: [innodb, isam], port: [1, 2]}\n      postgres: {wal: [on_, off_]}\n"
            "    optimizer@train.opt:\n      SGD: {lr: [1, 2]}\n      adam: {/db.size: [5, 6]}\n",
            "db/mysql.yaml": "defaults: [{engine: innodb}, _self_]\nport: 3306\n",
            "db/postgres.yaml": "# @package db\nport: 5432\nwal: x\n",
            "db/engine/innodb.yaml": "kind: innodb\nport: 9\n",
            "db/engine/isam.yaml": "# @package _global_\ndb: {isam: true}\n",
            **BASE,
        },
        trials=0,
    ),
    "override of a group from within an option, appended groups": Tree(
        {
            "sweep.yaml": "defaults: [{model: lstm}, {optimizer: SGD}, _self_]\nz: 1\n"
            + SWEEP
            + "    +experiment: [a, b]\n    z: [1, 2]\n",
            "experiment/a.yaml": "# @package _global_\ndefaults: [{override /model: gru}]\n"
            "z: 5\nmodel: {hidden: 999}\n",
            "experiment/b.yaml": "# @package _global_\ndefaults: [{override /optimizer: adam}, _self_]\nnew: ${z}\n",
            **BASE,
        },
        sigils={"experiment": "+"},
        trials=4,
        fast=True,
    ),
    "choices interpolated in the defaults list, optional groups": Tree(
        {
            "sweep.yaml": "defaults: [{model: lstm}, {optimizer: SGD}, {optional combo: '${model}_${optimizer}'},"
            " {optional extra: none_such}, _self_]\n" + SWEEP + "    model: [lstm, gru]\n    optimizer: [SGD, adam]\n",
            "combo/gru_adam.yaml": "both: true\n",
            "combo/lstm_SGD.yaml": "# @package model\nhidden: 1\n",
            "extra/some.yaml": "a: 1\n",
            **BASE,
        },
        trials=4,
        fast=True,
    ),
    "a group left out, and several options at once": Tree(
        {
            "sweep.yaml": "defaults: [{model: lstm}, {optimizer: SGD}, _self_]\n"
            + SWEEP
            + "    optimizer: [null, SGD, [SGD, adam]]\n    model: [gru, lstm]\n",
            **BASE,
        },
        trials=6,
        fast=True,
    ),
    "a group whose default is null, and one overridden in the primary": Tree(
        {
            "sweep.yaml": "defaults: [{model: null}, {optimizer: SGD}, base, _self_, {override optimizer: adam}]\n"
            "q: 1\n" + SWEEP + "    model: [gru, lstm]\n    optimizer: [SGD, adam]\n",
            "base.yaml": "# @package _global_\nq: 3\nr: ${q}\n",
            **BASE,
        },
        trials=4,
        fast=True,
    ),
    "an appended group left out": Tree(
        {
            "sweep.yaml": HEAD + "z: 1\n" + SWEEP + "    +experiment: [null, a]\n    z: [1, 2]\n",
            "experiment/a.yaml": "# @package _global_\nz: 5\nw: ${z}\n",
            **BASE,
        },
        sigils={"experiment": "+"},
        trials=4,
        fast=True,
    ),
    "keys added": Tree(
        {
            "sweep.yaml": HEAD
            + "x: {a: 1}\n"
            + SWEEP
            + "    +x.b: [1, [2]]\n    ++x.a: [3, 4]\n    +new.deep.key: [5]\n",
            **BASE,
        },
        sigils={"x.b": "+", "x.a": "++", "new.deep.key": "+"},
        trials=4,
        fast=None,
    ),
    "elements of lists, keys with numbers": Tree(
        {
            "sweep.yaml": HEAD + "xs: [{a: 1}, 2]\nm: {1: a, true: b, 2.5: c}\n" + SWEEP + "    xs.0.a: [5, 6]\n",
            **BASE,
        },
        trials=2,
        fast=False,
    ),
    "structured nodes": Tree(
        {
            "sweep.yaml": "defaults: [tests_schema, {model: lstm}, _self_]\nlr: 0.2\n"
            + SWEEP
            + "    lr: [1, 0.5]\n    kind: [RED, BLUE]\n    n: [2]\n    opt: [null, x]\n"
            "    ++ratios: [{a: 1}, {b: 2.5}]\n",
            **BASE,
        },
        sigils={"ratios": "++"},
        trials=16,
    ),
    "hydra's own groups": Tree(
        {
            "sweep.yaml": "defaults: [{model: lstm}, _self_, {override hydra/job_logging: none}]\n"
            "hydra: {run: {dir: out}}\nx: 1\n" + SWEEP + "    x: [1, 2]\n    model: [lstm, gru]\n",
            **BASE,
        },
        fixed=("hydra.job.name=q", "hydra/hydra_logging=none"),
        trials=4,
        fast=True,
    ),
}


class Color(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Schema:
    lr: float = 0.1
    kind: Color = Color.RED
    n: int = 1
    opt: str | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    model: Any = None
    sweep: Any = None


@pytest.fixture(autouse=True)
def _schema_and_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    store = ConfigStore.instance()
    store.store(name="tests_schema", node=Schema)
    monkeypatch.setenv("TREE_HOME", "/home/tree")
    OmegaConf.register_new_resolver("tests.twice", lambda value: [value, value], replace=True)
    yield
    OmegaConf.clear_resolver("tests.twice")
    del store.repo["tests_schema.yaml"]


@pytest.mark.parametrize("name", TREES)
def test_trials_equal_what_hydra_composes(name: str, tmp_path: Path) -> None:
    tree = TREES[name]
    file = write(tmp_path, tree.files)
    plan = planning.load(file, tree.fixed)
    count = check(file, plan, tree.fixed, tree.sigils)
    assert not tree.trials or count == tree.trials
    if tree.fast is not None:
        assert all((renderer.template is not None) == tree.fast for renderer in plan.renderers.values())


def test_search_paths_of_the_primary_config_and_of_the_command_line(tmp_path: Path) -> None:
    write(tmp_path / "more", {"model/far.yaml": "name: far\n"})
    write(tmp_path / "extra", {"model/dir.yaml": "name: dir\n"})
    body = HEAD + f"hydra: {{searchpath: ['file://{tmp_path}/more']}}\n" + SWEEP + "    model: glob(*)\n"
    file = write(tmp_path / "conf", {"sweep.yaml": body, **BASE})
    plan = planning.load(file)
    assert check(file, plan) == 3
    assert list(plan.summary().by_choice["model"]) == ["far", "gru", "lstm"]
    fixed = [f"hydra.searchpath=['file://{tmp_path}/extra']"]
    assert check(file, planning.load(file, fixed), fixed) == 3
    both = planning.load(file, config_dir=tmp_path / "extra")
    assert [trial.config["model"]["name"] for trial in both.trials()] == ["dir", "far", "gru", "lstm"]


def test_an_existing_project_needs_only_one_more_file(tmp_path: Path) -> None:
    section = "trainer: a.b:c\naxes:\n  optimizer: {SGD: {lr: [1, 2]}, adam: {}}\n  model: 'lstm,gru'\n"
    file = write(tmp_path, {"config.yaml": HEAD + "seed: 3\n", "sweep/lr.yaml": section, **BASE})
    plan = planning.load(file, ["sweep=lr", "seed=5"])
    assert plan.spec.name == "lr"
    assert check(file, plan, ["seed=5"]) == 6
    assert all(trial.seed == 5 and "sweep" not in trial.config for trial in plan.trials())
    listed = write(tmp_path, {"with.yaml": "defaults: [{sweep: other}, {model: lstm}, {optimizer: SGD}, _self_]\n"})
    assert planning.load(listed, ["sweep=lr"]).spec.name == "lr"


VALUES = [
    0,
    1,
    -3,
    1.5,
    1e-5,
    True,
    None,
    "text",
    "${seed}",
    "a-${seed}",
    [1, 2],
    ["${seed}"],
    {"k": 1},
    "",
    "1e-3",
    "on",
]
RICH = {
    "sweep.yaml": "defaults: [{model: lstm}, {optimizer: SGD}, {optional combo: '${model}_${optimizer}'}, _self_]\n"
    "seed: 1\nx: 1\ny: {z: '${..x}', deep: {w: 2, v: '${seed}/${y.z}'}}\n"
    "all: ['${x}', '${optimizer.lr}', {m: '${y.z}'}]\n"
    "name: ${model.name}-${optimizer.name}-${seed}\nfree: {any: 1}\n"
    "sweep: {trainer: 'a.b:c', axes: AXES}\n",
    "combo/gru_adam.yaml": "both: ${seed}\n",
    "experiment/one.yaml": "# @package _global_\ndefaults: [{override /model: gru}]\nx: 9\n",
    **BASE,
}


def generated(rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    """Random axes as a user might write them, and the sigils of their keys."""
    axes: dict[str, Any] = {}
    for key in rng.sample(["x", "y.z", "y.deep.w", "optimizer.lr", "seed", "free.any", "+free.new", "++y.deep.new"], 3):
        axes[key] = rng.sample(VALUES, 2)
    if "seed" in axes:
        axes["seed"] = [rng.randrange(100) for _ in range(2)]
    if rng.random() < 0.6:
        axes["model"] = rng.sample(["lstm", "gru"], 2)
    if rng.random() < 0.6:
        axes["optimizer"] = {"SGD": {"momentum": [0.1, 0.2]}, "adam": None}
    if rng.random() < 0.4:
        axes["+experiment"] = ["one"]
        axes.pop("model", None)
    shuffled = dict(rng.sample(list(axes.items()), len(axes)))
    return shuffled, {key.lstrip("+"): key[: len(key) - len(key.lstrip("+"))] for key in shuffled}


@pytest.mark.parametrize("seed", range(16))
def test_generated_axes_equal_what_hydra_composes(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    axes, sigils = generated(rng)
    body = RICH["sweep.yaml"].replace("AXES", json.dumps(axes))
    file = write(tmp_path, {**RICH, "sweep.yaml": body})
    trials = list(planning.load(file).trials())
    for trial in rng.sample(trials, min(2, len(trials))):
        overrides = [line(key, value, GROUPS, sigils.get(key, "")) for key, value in trial.overrides.items()]
        assert canonical(trial.config) == canonical(composed(file, overrides)), overrides


def test_the_quoting_of_these_tests_is_right(tmp_path: Path) -> None:
    file = write(tmp_path, {"a.yaml": "seed: 0\n"})
    expected = OmegaConf.to_container(OmegaConf.create({"xs": VALUES, "seed": 0}), resolve=True)
    assert composed(file, [f"+xs={quoted(VALUES)}"]) == expected
