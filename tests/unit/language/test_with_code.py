"""What the user's code registers when it is imported is known while composing, as under Hydra itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.language import planning
from orchestrator.language.planning import SweepPlan
from tests.unit.language.conf_trees import write

APP = """
import dataclasses, os, sys, hydra, helper
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

print("importing", file=sys.stderr)
os.chdir("/")
OmegaConf.register_new_resolver("times", lambda a, b: a * b, use_cache=True)

@dataclasses.dataclass
class Net:
    kind: str = "net"
    width: int = 8
    depth: int = MISSING

ConfigStore.instance().store(group="net", name="schema", node=Net)
ConfigStore.instance().store(group="opt", name="sgd", node={"lr": 0.5, "momentum": 0.9})
ConfigStore.instance().store(group="opt", name="adam", node={"lr": 0.1})

@hydra.main(version_base=None, config_path="conf", config_name="sweep")
def main(cfg):
    OmegaConf.register_new_resolver("at_run", lambda x: x + 1)

if __name__ == "__main__":
    main()
"""
CONF = {
    "sweep.yaml": "defaults: [{opt: sgd}, {net: wide}, _self_]\nlr: 2\ntwice: '${times:${lr},2}'\nall: ['${twice}']\n"
    "sweep: {trainer: 'app:main', axes: {opt: [sgd, adam], net.width: [16, '32']}}\n",
    "net/wide.yaml": "defaults: [schema, _self_]\nwidth: 64\ndepth: 3\n",
}


def load(folder: Path, files: dict[str, str], *overrides: str) -> SweepPlan:
    write(folder, {"app.py": APP, "helper.py": ""})
    return planning.load(write(folder / "conf", files), overrides, project=folder)


@pytest.mark.parametrize("late", [False, True])
def test_resolvers_and_schemas_of_the_users_code(late: bool, tmp_path: Path) -> None:
    files = CONF
    if late:  # only the second option needs them
        files = {
            "sweep.yaml": "defaults: [{opt: plain}, _self_]\nlr: 2\n"
            "sweep: {trainer: 'app:main', axes: {opt: [plain, other]}}\n",
            "opt/plain.yaml": "a: 1\n",
            "opt/other.yaml": "a: '${times:${lr},3}'\n",
        }
    plan = load(tmp_path, files)
    trials = list(plan.trials())
    assert trials == list(plan.trials())
    assert plan.first_trial() == trials[0]
    if late:
        assert [t.config["opt"]["a"] for t in trials] == [1, 6]
    else:
        assert [(t.config["opt"], t.config["net"]["width"]) for t in trials] == [
            *(({"lr": 0.5, "momentum": 0.9}, width) for width in (16, 32)),
            *(({"lr": 0.1}, width) for width in (16, 32)),
        ]
        assert trials[0].config["net"] == {"kind": "net", "width": 16, "depth": 3}
        assert trials[0].config["all"] == [4]
    notes = [note for note in plan.summary().warnings if note.startswith("app is imported")]
    assert len(notes) == 1 or late
    assert late or "there is no config 'net/schema'" in notes[0]
    assert plan.summary().total == len(trials)


ROOT = """
import dataclasses, hydra
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from typing import Any

@dataclasses.dataclass
class Root:
    lr: float = 0.1
    opt: Any = None
    twice: float = "${times:${lr}}"

ConfigStore.instance().store(name="root", node=Root)
OmegaConf.register_new_resolver("times", lambda a: a * 2)

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    pass

if __name__ == "__main__":
    main()
"""
SECTION = "{trainer: 'app:main', axes: {lr: [1, 2], opt: [sgd]}}\n"


@pytest.mark.parametrize("place", ["in the file", "chosen", "in the defaults"])
def test_a_schema_of_the_whole_config_has_no_say_on_the_sections_sweep_and_hydra(place: str, tmp_path: Path) -> None:
    defaults = "[root, _self_, {sweep: s}]" if place == "in the defaults" else "[root, _self_]"
    text = f"defaults: {defaults}\nlr: 3\nhydra: {{job: {{name: mine}}}}\n"
    text += f"sweep: {SECTION}" if place == "in the file" else ""
    words = ["sweep=s"] if place == "chosen" else []
    write(tmp_path, {"app.py": ROOT})
    file = write(tmp_path / "conf", {"config.yaml": text, "sweep/s.yaml": SECTION})
    plan = planning.load(file, [*words, "sweep.repeats=1"], project=tmp_path)
    assert [t.config for t in plan.trials()] == [{"lr": lr, "opt": "sgd", "twice": 2 * lr} for lr in (1.0, 2.0)]
    assert plan.spec.hydra["config"]["job"]["name"] == "mine"
    with pytest.raises(ConfigError, match="'rate'"):
        list(planning.load(file, [*words, "rate=3"], project=tmp_path).trials())


TYPED = """
Act = enum.Enum("Act", "relu gelu")

@dataclasses.dataclass
class Root:
    act: Act = Act.relu
    acts: list[Act] = dataclasses.field(default_factory=list)
    out: pathlib.Path = pathlib.Path("x")
"""


def test_values_that_are_text_in_a_trial_and_not_in_its_schema_are_told(tmp_path: Path) -> None:
    app = ROOT.replace("import dataclasses", "import dataclasses, enum, pathlib")
    write(tmp_path, {"app.py": app.replace("@dataclasses.dataclass\nclass Root:\n", TYPED)})
    text = f"defaults: [root, _self_]\nacts: [gelu]\nsweep: {SECTION}"
    plan = planning.load(write(tmp_path / "conf", {"config.yaml": text}), ["act=gelu,relu"], project=tmp_path)
    first = plan.first_trial()
    assert (first.config["act"], first.config["acts"], first.config["out"]) == ("gelu", ["gelu"], "x")
    keys = [note.partition(": ")[2] for note in plan.summary().warnings if note.startswith("the trainer gets as text")]
    assert keys == ["act (Act), acts.0 (Act), out (Path)"]


def test_plan_and_hydra_agree(tmp_path: Path) -> None:
    import json

    plan = load(tmp_path, CONF)
    last = list(plan.trials())[-1]
    command = [sys.executable, "app.py", "--cfg", "job", "--resolve", *last.hydra["task"]]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=True)
    import yaml

    shown = yaml.safe_load(done.stdout)
    shown.pop("sweep")
    assert json.loads(json.dumps(last.config)) == shown


def test_what_only_functions_register_is_left_to_the_trainer(tmp_path: Path) -> None:
    body = "lr: 2\nx: '${at_run:${lr}}'\ny: 'a ${x}'\nz: '${times:${lr},2}'\n"
    plan = load(tmp_path, {"sweep.yaml": body + "sweep: {trainer: 'app:main', axes: {lr: [1, 2]}}\n"})
    one, two = plan.trials()
    assert one.references == {"x": "${at_run:${lr}}", "y": "a ${x}"}
    assert two.config == {"lr": 2, "x": "${at_run:${lr}}", "y": "a ${x}", "z": 4}
    notes = plan.summary().warnings
    assert "app is imported to compose the configs: the resolver 'at_run' is not known" in notes
    assert any("x stays ${at_run:${lr}}" in note for note in notes)
    other = load(tmp_path, {"sweep.yaml": body.replace("at_run:$", "at_run:1$") + SWEEP})
    assert one.trial_id != next(other.trials()).trial_id


SWEEP = "sweep: {trainer: 'app:main', axes: {lr: [1, 2]}}\n"


def test_a_name_that_nobody_registers_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tmies"):
        list(load(tmp_path, {"sweep.yaml": "lr: 0\nx: '${tmies:1,2}'\n" + SWEEP}).trials())
    body = "lr: 0\nsweep: {trainer: 'app:main', axes: {+opt: [smg]}}\n"
    with pytest.raises(ConfigError, match=r"no option 'smg'[\s\S]*its options: adam, sgd"):
        list(load(tmp_path, {"sweep.yaml": body, "opt/adam.yaml": "lr: 1\n"}).trials())


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": "import no_such_package\n"})
    file = write(tmp_path / "conf", {"sweep.yaml": "lr: 0\nx: '${times:1,2}'\n" + SWEEP})
    with pytest.raises(ConfigError, match=r"times[\s\S]*app, which may register it[\s\S]*no_such_package"):
        planning.load(file, project=tmp_path).first_trial()
    write(tmp_path, {"app.py": "import os\nos._exit(3)\n"})
    with pytest.raises(ConfigError, match="the process ended"):
        planning.load(file, project=tmp_path).first_trial()


def test_a_variable_of_the_environment_that_the_module_sets_is_known(tmp_path: Path) -> None:
    body = "lr: 0\nroot: '${oc.env:ROOT_OF_APP}/data'\n" + SWEEP
    file = write(tmp_path / "conf", {"sweep.yaml": body})
    write(tmp_path, {"app.py": "import setup\n", "setup.py": "import os\nos.environ['ROOT_OF_APP'] = '/there'\n"})
    plan = planning.load(file, project=tmp_path)
    assert [t.config["root"] for t in plan.trials()] == ["/there/data", "/there/data"]
    assert "app is imported to compose the configs: the environment variable 'ROOT_OF_APP' is not set; at key root" in (
        plan.summary().warnings
    )


@pytest.mark.parametrize("helper", ["", "import os\nos.environ['ANOTHER'] = '1'\n"])
def test_a_variable_of_the_environment_that_nobody_sets_is_told(helper: str, tmp_path: Path) -> None:
    write(tmp_path, {"app.py": "import helper\n", "helper.py": helper})
    file = write(tmp_path / "conf", {"sweep.yaml": "lr: 0\nroot: '${oc.env:ROOT_OF_APP}/data'\n" + SWEEP})
    with pytest.raises(ConfigError) as raised:
        list(planning.load(file, project=tmp_path).trials())
    assert raised.value.what == "the environment variable 'ROOT_OF_APP' is not set; at key root"
    assert raised.value.fix == "set it in your shell, or give a default: ${oc.env:ROOT_OF_APP,DEFAULT}"


def test_packages_of_the_project_are_found(tmp_path: Path) -> None:
    write(tmp_path, {"shared/__init__.py": "", "shared/conf/__init__.py": "", "shared/conf/opt/far.yaml": "lr: 7\n"})
    body = "hydra: {searchpath: ['pkg://shared.conf']}\nlr: 0\nsweep: {trainer: 'app:main', axes: {+opt: 'glob(f*)'}}\n"
    assert [t.config["opt"] for t in load(tmp_path, {"sweep.yaml": body}).trials()] == [{"lr": 7}]


def test_an_iteration_that_is_given_up_does_not_disturb_the_next(tmp_path: Path) -> None:
    body = "lr: 0\nx: '${times:${lr},2}'\nsweep: {trainer: 'app:main', axes: {lr: 'range(0, 600)'}}\n"
    plan = load(tmp_path, {"sweep.yaml": body})
    some = plan.trials()
    assert next(some).config["x"] == 0
    some.close()
    assert [t.config["x"] for t in plan.trials()] == list(range(0, 1200, 2))


def test_the_other_process_ends_with_the_plan(tmp_path: Path) -> None:
    plan = load(tmp_path, CONF)
    process = plan._end.peek()[2][1]  # type: ignore[attr-defined]
    del plan
    assert process.poll() == 0


def test_the_module_is_not_imported_where_nothing_asks_for_it(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": f"import os, signal\nos.kill({os.getpid()}, {signal.SIGTERM!r})\n"})
    file = write(tmp_path / "conf", {"sweep.yaml": "lr: 0\n" + SWEEP})
    assert len(list(planning.load(file, project=tmp_path).trials())) == 2
