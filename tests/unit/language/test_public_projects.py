"""Conf folders as public Hydra projects have them compose as under Hydra itself, or are refused with a reason.

Each is built after the way that a project, or a family of projects, arranges its configs and code; none is a copy.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from orchestrator.errors import ConfigError
from orchestrator.language import planning
from orchestrator.language.identity import canonical
from tests.unit.language.conf_trees import as_hydra_composes, write

PLAIN = "import hydra\n\n\n@hydra.main(HEADER)\ndef main(cfg): pass\n"


@dataclass(frozen=True)
class Project:
    """A project whose first file is its primary config, in the folder `conf`."""

    files: dict[str, str]
    sweep: str  # the `sweep` section, without the trainer
    header: str = "version_base=None, config_path='conf'"
    code: dict[str, str] = field(default_factory=dict)  # beside `conf`; `app.py` has the trainer
    overrides: tuple[str, ...] = ()
    trials: int = 2
    refused: str = ""  # a pattern of the message, where Hydra itself refuses the project too


PROJECTS = {
    "a template for Lightning: groups at the root, experiments, colour logging, an optuna search": Project(
        {
            "train.yaml": "# @package _global_\ndefaults:\n  - _self_\n  - data: digits\n  - model: dense\n"
            "  - callbacks: all\n  - logger: null\n  - trainer: cpu\n  - paths: here\n  - hydra: usual\n"
            "  - experiment: null\n  - hparams_search: null\n  - optional local: mine\n  - debug: null\n"
            "task: train\ntags: [dev]\ntrain: true\nckpt: null\nseed: 7\n",
            "data/digits.yaml": "_target_: app.Data\ndir: ${paths.data}\nbatch: 128\n",
            "model/dense.yaml": "_target_: app.Model\noptimizer: {_target_: app.Adam, _partial_: true, lr: 0.001}\n"
            "net: {sizes: [64, 128], out: 10}\n",
            "callbacks/all.yaml": "defaults: [checkpoint, early, _self_]\ncheckpoint: {dir: '${paths.out}/ckpt'}\n",
            "callbacks/checkpoint.yaml": "checkpoint: {_target_: app.Checkpoint, dir: null, monitor: acc}\n",
            "callbacks/early.yaml": "early: {_target_: app.Early, patience: 100}\n",
            "trainer/default.yaml": "_target_: app.Trainer\nroot: ${paths.out}\nepochs: 10\naccelerator: cpu\n",
            "trainer/cpu.yaml": "defaults: [default]\naccelerator: cpu\n",
            "trainer/gpu.yaml": "defaults: [default]\naccelerator: gpu\ndevices: 1\n",
            "paths/here.yaml": "root: ${oc.env:HOME}\ndata: ${paths.root}/data/\nlogs: ${paths.root}/logs/\n"
            "out: ${hydra:runtime.output_dir}\nwork: ${hydra:runtime.cwd}\n",
            "hydra/usual.yaml": "defaults: [{override hydra_logging: colorlog}, {override job_logging: colorlog}]\n"
            "run: {dir: '${paths.logs}/${task}/runs/${now:%Y-%m-%d}'}\n"
            "sweep: {dir: '${paths.logs}/${task}/multi', subdir: '${hydra.job.num}'}\n"
            "job_logging: {handlers: {file: {filename: '${hydra.runtime.output_dir}/${task}.log'}}}\n",
            "experiment/wide.yaml": "# @package _global_\n"
            "defaults: [{override /trainer: gpu}, {override /model: dense}]\n"
            "tags: [digits, wide]\nmodel: {net: {sizes: [512]}}\ntrainer: {epochs: 3}\n",
            "hparams_search/tpe.yaml": "# @package _global_\ndefaults: [{override /hydra/sweeper: optuna}]\n"
            "optimized: val/acc\nhydra: {mode: MULTIRUN, sweeper: {_target_: plugins.Sweeper, n_trials: 20,"
            " direction: maximize, sampler: {_target_: optuna.TPE, seed: 1},"
            " params: {model.optimizer.lr: 'choice(0.1, 0.01)', data.batch: 'choice(32, 64)'}}}\n",
            "debug/fast.yaml": "# @package _global_\ntask: debug\nhydra: {job_logging: {root: {level: DEBUG}}}\n"
            "trainer: {epochs: 1}\n",
        },
        "axes: {experiment: [null, wide], model.optimizer.lr: [0.1, 0.01]}",
        trials=4,
    ),
    "the same, by the axes of its own search": Project(
        {
            "train.yaml": "defaults: [{model: dense}, {hparams_search: null}, _self_]\nbatch: 1\n",
            "model/dense.yaml": "lr: 1\n",
            "model/conv.yaml": "lr: 2\nkernel: 3\n",
            "hparams_search/tpe.yaml": "# @package _global_\ndefaults: [{override /hydra/sweeper: optuna}]\n"
            "hydra: {sweeper: {n_trials: 20, params: {model: 'choice(dense, conv)', batch: 'range(1, 3)'}}}\n",
        },
        "",
        overrides=("hparams_search=tpe",),
        trials=4,
    ),
    "reinforcement learning from pixels: root packages, values that the code fills, a launcher": Project(
        {
            "config.yaml": "defaults:\n  - _self_\n  - buffer@_global_: loader\n  - task@_global_: walk\n"
            "  - override hydra/launcher: submitit_local\nseed: 1\nlr: 1e-4\ndevice: cuda\nexperiment: exp\n"
            "agent: {_target_: app.Agent, obs_shape: ???, action_shape: ???, lr: '${lr}', device: '${device}',"
            " clip: '${clip}', critic: {shape: '${agent.obs_shape}'}}\n"
            "hydra:\n  run: {dir: './exp/${now:%Y.%m.%d}_${hydra.job.override_dirname}'}\n"
            "  sweep: {dir: './exp/${agent_cfg.experiment}', subdir: '${hydra.job.num}'}\n"
            "  launcher: {timeout_min: 4300, folder: './exp/${agent_cfg.experiment}/.slurm'}\n".replace("???", "'???'"),
            "buffer/loader.yaml": "# @package _global_\nbuffer: {_target_: app.Buffer, workers: 4}\n",
            "task/easy.yaml": "frames: 1000\nclip: 0.3\n",
            "task/walk.yaml": "defaults: [easy, _self_]\nname: walk\nclip: 0.5\n",
            "task/run.yaml": "defaults: [easy, _self_]\nname: run\n",
        },
        "allow_missing: [agent.*], axes: {task@_global_: [walk, run], lr: [1e-4, 1e-3]}",
        header="config_path='conf', config_name='config'",
        trials=4,
    ),
    "model-based learning of Hydra 1.0: headers of groups, no _self_, a group that overrides others": Project(
        {
            "main.yaml": "defaults: [{algorithm: pets}, {dynamics: ensemble}, {overrides: pole}]\n"
            "seed: 0\nroot: ./exp\nhydra: {run: {dir: '${root}/${algorithm.name}/${now:%H%M%S}'}}\n",
            "algorithm/pets.yaml": "# @package _group_\nname: pets\nagent: {horizon: '${overrides.horizon}'}\n",
            "algorithm/mbpo.yaml": "# @package _group_\nname: mbpo\nsac: {gamma: 0.99}\n",
            "dynamics/ensemble.yaml": "# @package _group_\nsize: 5\nlayers: ${overrides.layers}\n",
            "overrides/pole.yaml": "# @package _group_\nenv: pole\nlayers: 3\nhorizon: 15\n",
            "overrides/hop.yaml": "# @package _group_\nenv: hop\nlayers: 4\nhorizon: 10\n",
        },
        "axes: {algorithm: [pets, mbpo], overrides: [pole, hop]}",
        header="config_path='conf', config_name='main'",
        trials=4,
    ),
    "a simulator: a group that is named after another's choice, resolvers at the module's head": Project(
        {
            "config.yaml": "task_name: ${task.name}\nnum_envs: ''\nseed: 42\ntest: false\nmulti_gpu: false\n"
            "defaults: [{task: Ant}, {train: '${task}PPO'}, {override hydra/job_logging: disabled}, _self_]\n"
            "hydra: {output_subdir: null, run: {dir: .}}\n",
            "task/Ant.yaml": "name: Ant\nenv: {num: '${or:4096,${...num_envs}}'}\nsim: {gpu: '${is:a,A}'}\n",
            "task/Cart.yaml": "name: Cart\nenv: {num: '${or:512,${...num_envs}}'}\nsim: {gpu: '${is:a,b}'}\n",
            "train/AntPPO.yaml": "seed: ${..seed}\nname: ${or:Ant,${..experiment}}\nexperiment: ''\n".replace(
                "${..experiment}", "${.experiment}"
            ),
            "train/CartPPO.yaml": "seed: ${..seed}\nname: cart\n",
        },
        "axes: {task: [Ant, Cart], num_envs: ['', 64]}",
        code={
            "app.py": "import hydra\nfrom omegaconf import OmegaConf\n"
            "OmegaConf.register_new_resolver('is', lambda a, b: a.lower() == b.lower())\n"
            "if not OmegaConf.has_resolver('or'):\n"
            "    OmegaConf.register_new_resolver('or', lambda default, given: default if given == '' else given)\n"
            "@hydra.main(version_base='1.1', config_name='config', config_path='./conf')\ndef main(cfg): pass\n"
        },
        trials=4,
    ),
    "policies for robots: arithmetic in the config": Project(
        {
            "train.yaml": "defaults: [_self_, {task: push}]\nname: train_net\nobs: ${task.obs}\nsteps: 2\nlatency: 0\n"
            'global: true\npolicy: {input: "${eval: ${task.act} if ${global} else ${task.obs}+${task.act}}",'
            ' steps: "${eval:\'${steps}+${latency}\'}", local: "${eval: ${task.obs} if not ${global} else None}"}\n'
            "logging: {name: '${now:%Y}_${name}_${task.name}', tags: ['${name}', '${task.name}']}\n"
            "hydra: {job: {override_dirname: '${name}'}, run: {dir: 'out/${now:%Y}_${name}'}}\n",
            "task/push.yaml": "name: push\nobs: 20\nact: 2\n",
            "task/lift.yaml": "name: lift\nobs: 10\nact: 7\n",
        },
        "axes: {task: [push, lift], steps: [2, 4], global: [true, false]}",
        code={
            "app.py": "import os, sys, hydra\nsys.stdout.flush()\nfrom omegaconf import OmegaConf\n"
            "OmegaConf.register_new_resolver('eval', eval, replace=True)\n"
            "@hydra.main(version_base=None, config_path='conf')\ndef main(cfg):\n    OmegaConf.resolve(cfg)\n"
        },
        trials=8,
    ),
    "a typed config: schemas of every group in a store, filled by the package's own modules": Project(
        {
            "config.yaml": "defaults: [base_config, {task: clip}, {optimizer: sgd}, _self_]\nout: here\n"
            "model: {width: 64}\n",
            "task/clip.yaml": "defaults: [base_task]\nmax_steps: 10\n",
            "optimizer/sgd.yaml": "lr: 0.1\n",
            "optimizer/adam.yaml": "lr: 0.01\nbetas: [0.9, 0.99]\n",
        },
        "axes: {optimizer: [sgd, adam], model.width: [32, '128'], task.kind: [A, B]}",
        code={
            "app.py": "import hydra\nimport shapes.store\n@hydra.main(version_base=None, config_path='conf')\n"
            "def main(cfg: 'shapes.store.Config'): pass\n",
            "shapes/__init__.py": "",
            "shapes/store.py": "from dataclasses import dataclass, field\nfrom enum import Enum\n"
            "from typing import Any, List\n"
            "from hydra.core.config_store import ConfigStore\nfrom omegaconf import MISSING\n"
            "class Kind(Enum):\n    A = 1\n    B = 2\n"
            "@dataclass\nclass Task:\n    max_steps: int = 1\n    kind: Kind = Kind.A\n    rate: float = 1\n"
            "@dataclass\nclass Model:\n    width: int = MISSING\n    tags: List[str] = field(default_factory=list)\n"
            "@dataclass\nclass Config:\n    task: Task = MISSING\n    model: Model = field(default_factory=Model)\n"
            "    optimizer: Any = MISSING\n    out: str = 'outputs'\n    sweep: Any = None\n"
            "store = ConfigStore.instance()\nstore.store(name='base_config', node=Config)\n"
            "store.store(group='task', name='base_task', node=Task)\n",
        },
        trials=8,
    ),
    "an application whose whole config is in a store, beside a file for the sweep": Project(
        {"sweep.yaml": "defaults: [structured, _self_]\n"},
        "axes: {db: [mysql, sqlite], port: [1, 2]}",
        code={
            "app.py": "from dataclasses import dataclass, field\nfrom typing import Any, List\nimport hydra\n"
            "from hydra.core.config_store import ConfigStore\nfrom omegaconf import MISSING\n"
            "@dataclass\nclass MySql:\n    driver: str = 'mysql'\n    timeout: int = 3\n"
            "@dataclass\nclass Sqlite:\n    driver: str = 'sqlite'\n    file: str = 'x'\n"
            "@dataclass\nclass Config:\n    defaults: List[Any] = field(default_factory=lambda: [{'db': 'mysql'}])\n"
            "    db: Any = MISSING\n    port: int = 0\n    sweep: Any = None\n"
            "store = ConfigStore.instance()\nstore.store(name='structured', node=Config)\n"
            "store.store(group='db', name='mysql', node=MySql)\nstore.store(group='db', name='sqlite', node=Sqlite)\n"
            "@hydra.main(version_base=None, config_path='conf', config_name='sweep')\ndef main(cfg: Config): pass\n"
        },
        trials=4,
    ),
    "driving: config folders inside packages, experiments to be chosen": Project(
        {
            "training.yaml": "hydra: {run: {dir: .}, output_subdir: '${out}/code', searchpath: [pkg://drive.common,"
            " pkg://drive.experiments]}\ndefaults: [common, {objective: ???}, {splitter: ???}, _self_]\n"
            "function: train\ncache: ${oc.env:HOME}/cache\nout: x\n".replace("???", "'???'"),
        },
        "axes: {objective: [imitate, agents], splitter: [ratio]}",
        code={
            "app.py": "import hydra\n@hydra.main(version_base=None, config_path='conf')\ndef main(cfg): pass\n",
            **dict.fromkeys(("drive/__init__.py", "drive/common/__init__.py", "drive/experiments/__init__.py"), ""),
            "drive/common/common.yaml": "gpu: true\nseed: 0\n",
            "drive/common/splitter/ratio.yaml": "_target_: drive.Ratio\nsplit: [0.8, 0.2]\n",
            "drive/experiments/objective/imitate.yaml": "imitate: {weight: 1.0}\n",
            "drive/experiments/objective/agents.yaml": "agents: {weight: 2.0}\n",
        },
    ),
    "a framework for agents: options with their ending, an experiment that overrides, relative references": Project(
        {
            "config.yaml": "# @package _global_\n"
            "defaults: [_self_, {algo: default.yaml}, {env: default.yaml}, {exp: null}]\n"
            "steps: ???\nseed: 42\nrun: '${env.id}_${seed}'\nroot: '${algo.name}/${now:%Y}'\n"
            "keys: {encoder: [], decoder: '${keys.encoder}'}\n".replace("???", "'???'"),
            "algo/default.yaml": "name: '???'\ntotal: ${steps}\nmlp: {units: 64, out: '${.units}'}\n",
            "algo/ppo.yaml": "defaults: [default, _self_]\nname: ppo\nclip: 0.2\n",
            "algo/sac.yaml": "defaults: [default, _self_]\nname: sac\ntau: 0.005\n",
            "env/default.yaml": "id: '???'\nnum: 4\nwrapper: {id: '${..id}'}\n",
            "env/gym.yaml": "defaults: [default, _self_]\nid: Cart\n",
            "exp/ppo.yaml": "# @package _global_\n"
            "defaults: [{override /algo: ppo}, {override /env: gym}, _self_]\nsteps: 10\n",
            "exp/sac.yaml": "# @package _global_\n"
            "defaults: [{override /algo: sac}, {override /env: gym}, _self_]\nsteps: 20\n",
        },
        "axes: {exp: [ppo, sac]}",
    ),
    "control with many values that the code fills": Project(
        {
            "config.yaml": "defaults: [{override hydra/launcher: submitit_local}]\ntask: walk\n"
            "steps: 10_000_000\nlr: 3e-4\nvmax: +10\n"
            "checkpoint: '???'\nobs_shape: '???'\nbin_size: '???'\nentity:\nseed: 1\n"
            "hydra: {job: {chdir: true, config: {override_dirname: {exclude_keys: [seed]}}}}\n"
        },
        "allow_missing: true, axes: {task: [walk, run], seed: 'range(1, 3)'}",
        header="config_name='config', config_path='conf'",
        trials=4,
    ),
    "names of runs by what was chosen": Project(
        {
            "config.yaml": "defaults: [{model: a}, {data/kind: x}, _self_]\nlr: 1\n"
            "run: '${hydra:runtime.choices.model}-${hydra:runtime.choices.data/kind}-${lr}'\n"
            "dir: '${hydra:job.override_dirname}'\nwhich: {file: '${hydra:job.config_name}', in: '${hydra:mode}'}\n"
            "hydra: {sweep: {subdir: '${hydra:runtime.choices.model}'},"
            " job: {name: named, env_set: {MODE: '${lr}'}}}\n",
            **{f"model/{name}.yaml": f"n: {name}\n" for name in "ab"},
            **{f"data/kind/{name}.yaml": f"k: {name}\n" for name in "xy"},
        },
        "axes: {model: [a, b], data/kind: [x, y]}",
        trials=4,
    ),
    "speech models: a header of its group in the primary config, lists, tuples as text": Project(
        {
            "base.yaml": "# @package _group_\ncommon: {fp16: true}\ntask: {_name: audio, data: ''}\n"
            "optimization: {lr: [0.0005], updates: 400000}\noptimizer: {_name: adam, betas: '(0.9,0.98)', eps: 1e-06}\n"
            "hydra: {sweep: {dir: '/tmp/${oc.env:HOME}/${hydra.job.config_name}'}}\n"
        },
        "axes: {optimization.lr: [[0.0005], [0.001]]}",
        header="config_path='conf', config_name='base', version_base='1.1'",
    ),
    "a section of Hydra 0.11": Project(
        {
            "train.yaml": "defaults: [{agent: sac}, _self_]\nenv: run\nhydra: {name: '${env}'}\n",
            "agent/sac.yaml": "lr: 1\n",
        },
        "axes: {agent.lr: [1, 2]}",
        header="config_path='conf', config_name='train'",
        refused="'hydra.name' is no key of HydraConf",
    ),
    "an old interpolation in a defaults list": Project(
        {
            "config.yaml": "defaults: [{data: a}, {model: m},"
            " {both: '${defaults.0.data}_${defaults.1.model}'}, _self_]\n",
            "data/a.yaml": "d: 1\n",
            "model/m.yaml": "m: 1\n",
            "both/a_m.yaml": "b: 1\n",
        },
        "axes: {data.d: [1, 2]}",
        header="config_path='conf', version_base='1.2'",
        refused="deprecated interpolation form",
    ),
}


@pytest.fixture(autouse=True)
def _no_global_hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def planned(folder: Path, project: Project) -> planning.SweepPlan:
    code = project.code or {"app.py": PLAIN.replace("HEADER", project.header)}
    write(folder, code)
    name, text = next(iter(project.files.items()))
    section = f"sweep: {{trainer: 'app:main', {project.sweep}}}\n"
    file = write(folder / "conf", {**project.files, name: text + section})
    return planning.load(file, project.overrides, project=folder)


# Composes the same overrides with Hydra alone, in a process that has imported the app.
TRUTH = """
import json, os, sys
import app
from tests.unit.language.conf_trees import as_hydra_composes
from pathlib import Path
file, version, asked = json.load(sys.stdin)
json.dump([as_hydra_composes(Path(file), *each, version) for each in asked], sys.stdout)
"""


@contextmanager
def plugins() -> Iterator[None]:
    """Meanwhile, Hydra finds the plugins that some of the projects ask for."""
    store = ConfigStore.instance()
    before = copy.deepcopy(store.repo["hydra"])
    for group, name in (("launcher", "submitit_local"), ("sweeper", "optuna")):
        store.store(group=f"hydra/{group}", name=name, node={})
    for group in ("hydra_logging", "job_logging"):
        store.store(group=f"hydra/{group}", name="colorlog", node={})
    yield
    store.repo["hydra"] = before


def truth(folder: Path, project: Project, file: Path, version: str, asked: list[Any]) -> Any:
    if not project.code:
        with plugins():
            return [as_hydra_composes(file, *each, version) for each in asked]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRUTH],
        cwd=folder,
        input=json.dumps([str(file), version, asked]),
        env={"PYTHONPATH": f"{folder}:{Path(__file__).parents[3]}", "HOME": str(Path.home()), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [name for name, project in PROJECTS.items() if not project.refused])
def test_a_project_composes_as_under_hydra(name: str, tmp_path: Path) -> None:
    project = PROJECTS[name]
    plan = planned(tmp_path, project)
    trials = list(plan.trials())
    assert len(trials) == project.trials
    assert len({trial.trial_id for trial in trials}) == len(trials)
    asked = [[trial.hydra["task"], trial.references] for trial in trials]
    expected = truth(tmp_path, project, plan.file, plan.spec.hydra["version_base"], asked)
    for trial, theirs in zip(trials, expected, strict=True):
        assert canonical(trial.config) == canonical(theirs["config"])
        choices = {**plan.spec.hydra["config"]["runtime"]["choices"], **trial.choices}
        assert {group: option for group, option in choices.items() if option is not None} == theirs["choices"]
        assert trial.hydra["override_dirname"] == theirs["override_dirname"]
        plan.shown(trial)


@pytest.mark.parametrize("name", [name for name, project in PROJECTS.items() if project.refused])
def test_a_project_that_hydra_refuses_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    project = PROJECTS[name]
    with pytest.raises(ConfigError, match=project.refused):
        list(planned(tmp_path, project).trials())
