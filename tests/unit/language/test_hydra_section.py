"""The `hydra` section of a config, and the version of Hydra's rules, count as they do under Hydra itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from orchestrator.errors import ConfigError
from orchestrator.language import planning
from orchestrator.language.planning import SweepPlan
from orchestrator.model.sweep import SweepSpec, TrialSpec
from tests.unit.language.conf_trees import composed, write

APP = {
    "1.1": "import hydra\n@hydra.main(config_path='conf', config_name='config')\ndef main(cfg): pass\n",
    "1.3": "import hydra\n@hydra.main(version_base=None, config_path='conf')\ndef main(cfg): pass\n",
    "": "def main(cfg): pass\n",
}
SWEEP = "sweep: {trainer: 'app:main', axes: {db: [mysql, sqlite], lr: [1, 2]}}\n"
CONF = {
    "sweep.yaml": "defaults: [{db: mysql}, _self_]\nlr: 0\n" + SWEEP,
    "db/mysql.yaml": "port: 1\n",
    "db/sqlite.yaml": "file: x\n",
}


@pytest.fixture(autouse=True)
def _no_global_hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def load(folder: Path, version: str, files: dict[str, str], *overrides: str) -> SweepPlan:
    """A plan of an app of this version of Hydra."""
    write(folder, {"app.py": APP[version]})
    return planning.load(write(folder / "conf", {**CONF, **files}), overrides, project=folder)


def told(plan: SweepPlan) -> dict[str, Any]:
    """The `hydra` section that all trials share."""
    section: dict[str, Any] = plan.spec.hydra["config"]
    return section


GROUP_HEADERS = {
    "db/mysql.yaml": "# @package _group_\nport: 1\n",
    "db/sqlite.yaml": "# @package _group_._name_\nfile: x\n",
}


@pytest.mark.parametrize("version", ["1.1", "1.3"])
def test_headers_have_the_meaning_of_the_apps_version(version: str, tmp_path: Path) -> None:
    plan = load(tmp_path, version, GROUP_HEADERS)
    file = tmp_path / "conf" / "sweep.yaml"
    for trial in plan.trials():
        overrides = [f"{key}={value}" for key, value in trial.overrides.items()]
        assert trial.config == composed(file, overrides, version)
    assert ("_group_" in str(next(plan.trials()).config)) == (version == "1.3")


def test_a_header_that_depends_on_an_unknown_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"db/mysql\.yaml: the header '# @package _group_' [\s\S]*sweep\.version_base"
    ):
        list(load(tmp_path, "", GROUP_HEADERS).trials())
    later = {**GROUP_HEADERS, "db/mysql.yaml": "port: 1\n"}
    with pytest.raises(ConfigError, match=r"db/sqlite\.yaml"):
        list(load(tmp_path, "", later).trials())
    stated = {**GROUP_HEADERS, "sweep.yaml": CONF["sweep.yaml"].replace("'app:main'", "'app:main', version_base: 1.1")}
    assert next(load(tmp_path, "", stated).trials()).config["db"] == {"port": 1}


def test_what_only_hydra_1_1_reads_is_read_for_its_apps_only(tmp_path: Path) -> None:
    old = {
        "sweep.yaml": "defaults: [{db: mysql}, {extra: none, optional: true}, {hydra/job_logging: colorlog}]\nlr: 0\n"
        + SWEEP
    }
    plan = load(tmp_path, "1.1", old)
    assert len(list(plan.trials())) == 4
    assert not any("deprecated" in note or "\n" in note for note in plan.summary().warnings)
    with pytest.raises(ConfigError, match="Too many keys"):
        load(tmp_path, "1.3", old)


def test_what_a_job_is_told(tmp_path: Path) -> None:
    job = "{env_set: {A: 'b'}, env_copy: [HF_HOME], config: {override_dirname: {exclude_keys: [lr]}}}"
    section = f"hydra: {{job: {job}}}\n"
    plan = load(tmp_path, "1.3", {"sweep.yaml": CONF["sweep.yaml"] + section}, "+seed=3", "hydra.job.chdir=true")
    trial = next(plan.trials())
    assert trial.hydra == {
        "task": ["+seed=3", "db=mysql", "lr=1"],
        "override_dirname": "+seed=3,db=mysql",
    }
    assert trial.told()["choices"] == {"db": "mysql"}
    job = told(plan)["job"]
    assert (job["name"], job["config_name"], job["chdir"], job["env_set"]) == ("app", "sweep", True, {"A": "b"})
    assert plan.spec.env == ("HF_HOME",)
    assert told(plan)["mode"] == "MULTIRUN"
    assert told(plan)["overrides"]["hydra"] == ["hydra.job.chdir=true", "hydra.mode=MULTIRUN"]
    assert told(plan)["runtime"]["version_base"] == "1.3"
    assert told(plan)["runtime"]["choices"]["hydra/launcher"] == "basic"
    assert any("trials start in run.dir" in note for note in plan.summary().warnings)


def test_variables_that_a_job_sets_count_in_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT_OF_DATA", "the shell's")
    body = "data: '${oc.env:ROOT_OF_DATA}/x'\nname: 'n-${oc.env:NAME_OF_JOB}'\n" + CONF["sweep.yaml"]
    section = "hydra: {job: {env_set: {ROOT_OF_DATA: /disk, NAME_OF_JOB: 'lr-${lr}'}}}\n"
    one, two, *_ = load(tmp_path, "1.3", {"sweep.yaml": body + section}).trials()
    assert one.config["data"] == "/disk/x"
    assert one.references == {"name": "n-${oc.env:NAME_OF_JOB}"}
    assert one.trial_id != two.trial_id
    named = load(tmp_path, "1.3", {"sweep.yaml": body.replace("n-$", "m-$") + section})
    assert one.trial_id != next(named.trials()).trial_id


def test_an_option_may_change_the_section(tmp_path: Path) -> None:
    files = {"db/sqlite.yaml": "# @package _global_\nhydra: {job: {env_set: {B: c}}}\ndb: {file: x}\n"}
    plan = load(tmp_path, "1.3", files)
    mysql, sqlite = (next(t for t in plan.trials() if t.overrides["db"] == name) for name in ("mysql", "sqlite"))
    assert "config" not in mysql.hydra
    assert sqlite.hydra["config"] == {"job": {"env_set": {"B": "c"}}}


def test_what_is_kept_survives_the_manifest(tmp_path: Path) -> None:
    plan = load(tmp_path, "1.3", {"sweep.yaml": "name: '${hydra:runtime.choices.db}'\n" + CONF["sweep.yaml"]})
    assert SweepSpec.from_json(plan.spec.to_json()) == plan.spec
    trial = next(plan.trials())
    assert trial.kept() == {"name": "${hydra:runtime.choices.db}", "hydra": trial.hydra}


def test_a_trainer_without_hydra_is_told_nothing(tmp_path: Path) -> None:
    plan = load(tmp_path, "", {})
    assert plan.spec.hydra == next(plan.trials()).hydra == {}


def test_a_changed_section_is_no_other_trial(tmp_path: Path) -> None:
    one = [t.trial_id for t in load(tmp_path, "1.3", {}).trials()]
    other = {"sweep.yaml": CONF["sweep.yaml"] + "hydra: {job: {chdir: true, name: other}}\n"}
    assert one == [t.trial_id for t in load(tmp_path, "1.1", other).trials()]


# ---------------------------------------------------------------- axes of Hydra's sweepers

PARAMS = "hydra: {sweeper: {params: {db: 'mysql,sqlite', lr: 'choice(1,2)', +new: 3, layers: [1, 2]}}}\n"
BARE = "defaults: [{db: mysql}, _self_]\nlr: 0\nlayers: []\nsweep: {trainer: 'app:main'}\n"


def test_the_params_of_hydras_sweeper_are_the_axes_where_the_sweep_has_none(tmp_path: Path) -> None:
    trials = list(load(tmp_path, "1.3", {"sweep.yaml": BARE + PARAMS}).trials())
    assert [(t.overrides["db"], t.overrides["lr"]) for t in trials] == [
        *(("mysql", 1), ("mysql", 2)),
        *(("sqlite", 1), ("sqlite", 2)),
    ]
    assert all(t.config["layers"] == [1, 2] and t.config["new"] == 3 for t in trials)
    narrowed = load(tmp_path, "1.3", {"sweep.yaml": BARE + PARAMS}, "db=sqlite", "lr=5,6,7")
    assert [t.overrides["lr"] for t in narrowed.trials()] == [5, 6, 7]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["hydra.sweeper.params.lr=7"], [("mysql", 7), ("sqlite", 7)]),
        (["hydra.sweeper.params.lr='7,8'", "hydra.sweeper.params.db=mysql"], [("mysql", 7), ("mysql", 8)]),
        (["~hydra.sweeper.params.lr"], [("mysql", 0), ("sqlite", 0)]),
        (["hydra.sweeper.params={lr: 9}"], [("mysql", 9), ("sqlite", 9)]),
    ],
)
def test_the_command_line_overrides_the_params(words: list[str], values: list[tuple[str, int]], tmp_path: Path) -> None:
    trials = load(tmp_path, "1.3", {"sweep.yaml": BARE + PARAMS}, *words).trials()
    assert [(t.choices["db"], t.config["lr"]) for t in trials] == values


def test_params_beside_axes_are_named_as_unused(tmp_path: Path) -> None:
    plan = load(tmp_path, "1.3", {"sweep.yaml": CONF["sweep.yaml"] + PARAMS})
    assert len(list(plan.trials())) == 4
    notes = [note for note in plan.summary().warnings if "hydra.sweeper.params" in note]
    assert notes == ["hydra.sweeper.params is not used, since there is sweep.axes: db, lr, +new, layers"]


def test_a_mistake_in_the_params_is_placed_there(tmp_path: Path) -> None:
    body = BARE + "hydra: {sweeper: {params: {dbb: 'a,b'}}}\n"
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.params\.dbb"):
        list(load(tmp_path, "1.3", {"sweep.yaml": body}).trials())


# ---------------------------------------------------------------- plugins, mistakes


def test_plugins_that_are_not_installed_do_not_matter(tmp_path: Path) -> None:
    head = (
        "defaults: [{db: mysql}, _self_, {override hydra/launcher: submitit_slurm}, {override hydra/sweeper: optuna},"
        " {override hydra/sweeper/sampler: tpe}, {override hydra/job_logging: colorlog}]\nlr: 0\n"
        "hydra: {launcher: {timeout_min: 3}, sweeper: {n_trials: 5, sampler: {seed: 1}}}\n"
    )
    plan = load(tmp_path, "1.3", {"sweep.yaml": head + SWEEP}, "hydra.launcher.timeout_min=4", "hydra.sweeper.x=1")
    assert len(list(plan.trials())) == 4
    assert told(plan)["runtime"]["choices"]["hydra/launcher"] == "submitit_slurm"


MISTAKES = {
    "hydra: {jbo: {chdir: true}}": ("'hydra.jbo'", "did you mean 'job'"),
    "hydra: {job: {chdri: true}}": ("'hydra.job.chdri'", "did you mean 'chdir'"),
    "hydra: {job: {env_set: {WANDB_API_KEY: abc}}}": ("hydra.job.env_set.WANDB_API_KEY", "secret"),
    "a: '${hydra:runtime.choices.dbb}'": ("a: ", "runtime.choices.dbb", "runtime.choices.db'"),
    "a: '${hydra:job.nmae}'": ("job.nmae", "did you mean 'job.name'"),
    "b: 'x-${hydra:sweep.folder}'": ("sweep.folder", "keys of sweep: dir, subdir"),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_what_hydra_does_not_have_is_refused_in_the_plan(line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        list(load(tmp_path, "1.3", {"sweep.yaml": f"{line}\n" + CONF["sweep.yaml"]}).trials())
    for word in MISTAKES[line]:
        assert word in str(caught.value)


def test_an_unknown_hydra_override_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.job\.chdri"):
        load(tmp_path, "1.3", {}, "hydra.job.chdri=true")


# ---------------------------------------------------------------- ${hydra:…}

NAMED = (
    "a: '${hydra:runtime.choices.db}'\nb: '${hydra:job.override_dirname}'\nc: 'x/${hydra:job.config_name}'\n"
    "d: '${hydra:mode}'\ne: '${a}-${lr}'\nf: '${hydra:overrides.task}'\ng: '${hydra:runtime.output_dir}/${a}'\n"
    "h: '${now:%Y}'\ni: {m: '${hydra:job.name}'}\napi_key: '${oc.env:HOME}'\nj: '${api_key}'\nk: '${hydra:job.num}'\n"
)


@pytest.mark.parametrize("version", ["1.3", ""])
def test_values_that_hydra_gives_are_shown_but_are_no_part_of_an_id(version: str, tmp_path: Path) -> None:
    plan = load(tmp_path, version, {"sweep.yaml": NAMED + CONF["sweep.yaml"]})
    first, *_, last = plan.trials()
    shown = plan.shown(last)
    assert {key: shown[key] for key in "abcdefghijk"} == {
        "a": "sqlite",
        "b": "db=sqlite,lr=2",
        "c": "x/sweep",
        "d": "MULTIRUN",
        "e": "sqlite-2",
        "f": ["db=sqlite", "lr=2"],
        "g": "${hydra:runtime.output_dir}/${a}",
        "h": "${now:%Y}",
        "i": {"m": "app"},
        "j": "${api_key}",
        "k": "${hydra:job.num}",
    }
    assert shown["api_key"] == "${oc.env:HOME}"
    assert last.config["a"] == "${hydra:runtime.choices.db}"
    without = [t.trial_id for t in load(tmp_path, version, {}).trials()]
    assert [first.trial_id, last.trial_id] == [without[0], without[-1]]


def test_overrides_are_told_as_hydra_would_parse_them(tmp_path: Path) -> None:
    axes = "{lr: [1e-3, 'a,b', true, null, [1, x y], {k: 'v:w'}, '1', it's]}"
    plan = load(tmp_path, "1.3", {"sweep.yaml": f"lr: 0\nsweep: {{trainer: 'app:main', axes: {axes}}}\n"})
    trials: list[TrialSpec] = list(plan.trials())
    for trial in trials:
        assert composed(tmp_path / "conf" / "sweep.yaml", trial.hydra["task"])["lr"] == trial.config["lr"]
    assert trials[0].hydra["task"] == ["lr=0.001"]
