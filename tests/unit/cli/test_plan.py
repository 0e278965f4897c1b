"""`plan` compares the sweep file with what was run, and today's code with what results were made with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.coordinator.opening import plan_sweep
from orchestrator.coordinator.session import RunLimits, drive
from orchestrator.executors.local import LocalExecutor
from orchestrator.folder.paths import SweepFolder
from orchestrator.language import planning
from orchestrator.manifest.reader import Reader
from tests.unit.manifests import opening

FILES = {
    "train.py": "import net\n\ndef train(cfg):\n    return {'loss': net.f(cfg.x)}\n",
    "net.py": "def f(x):\n    return x\n",
    "unused.py": "",
    "conf/sweep.yaml": """
seed: 1
x: 0
id: ${oc.env:JOB_ID}
name: run-${id}
sweep:
  name: s
  trainer: train:train
  axes: {x: [1, 2]}
  resources: {gpus: 0, cpus: 1}
""",
}
RESULTS = "  2 succeeded\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("JOB_ID", "100")
    for name in ("PYTHONPATH", "ORCHESTRATE_RUNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def sweep(project: Path, *overrides: str) -> list[str]:
    """Run the sweep; what is said before it starts."""
    plan = planning.load(Path("conf/sweep.yaml"), overrides)
    limits = RunLimits()
    session = plan_sweep(project / "runs", plan, project, None, limits, lambda: LocalExecutor(cpus=2))
    try:
        if session.executor is not None:
            drive(session, limits, lambda *_: None)
        return session.notes
    finally:
        session.release()


def test_a_plan_says_what_is_stale_and_why(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def planned(*words: str) -> str:
        assert main(["plan", "conf/sweep.yaml", *words]) == 0
        return capsys.readouterr().out

    assert "  2 to run\n" in planned()
    assert sweep(project) == []
    assert RESULTS in planned()
    (project / "unused.py").write_text("x = 1\n")
    (project / "train.py").write_text("# A comment.\n" + FILES["train.py"])
    assert RESULTS in planned()
    assert planned("--code-diff") == ""
    (project / "net.py").write_text("def f(x):\n    return -x\n")
    found = planned()
    assert "  2 stale: succeeded with other code\n" in found
    assert "  changed since: net.py +1 −1  (--code-diff shows how; " in found
    diff = planned("--code-diff").splitlines()
    assert diff[:2] == ["--- then/net.py", "+++ now/net.py"]
    assert diff[-2:] == ["-    return x", "+    return -x"]

    assert "3 to run" in planned("x=3,4,5")
    assert "note: 2 trials of the last plan (2 done) are not in this one" in planned("x=3,4,5")
    assert "note: none of them is the same: x: 1, 2 → 3, 4, 5\n" in planned("x=3,4,5")


def test_trials_whose_coordinator_died_are_to_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `status` says it."""
    plan = planning.load(Path("conf/sweep.yaml"), ())
    session = plan_sweep(project / "runs", plan, project, None, RunLimits(), lambda: LocalExecutor(cpus=2))
    with session.manifest.transaction():
        (first, _) = session.manifest.trials.due(1, -1, 10)
        session.manifest.attempts.open(opening(first.key, 1))
    try:
        assert main(["plan", "conf/sweep.yaml"]) == 0
        assert "  1 running, 1 to run\n" in capsys.readouterr().out
    finally:
        session.release()
    assert main(["plan", "conf/sweep.yaml"]) == 0
    assert "  2 to run\n" in capsys.readouterr().out


def test_a_value_of_the_heads_environment_that_renames_every_trial_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(project)
    monkeypatch.setenv("JOB_ID", "101")
    notes = sweep(project)
    assert notes[0].startswith("2 trials of the last plan (2 done) are not in this one")
    assert notes[1].startswith("none of them is the same: id: 100 → 101, name: run-100 → run-101; to leave them out: ")
    sweep(project, "sweep.ignore=[id]")
    monkeypatch.setenv("JOB_ID", "102")
    assert sweep(project, "sweep.ignore=[id]") == []


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ("train:trian", "train has no function 'trian'\n  → did you mean train:train?"),
        ("trian:train", "no module named 'trian'\n  → did you mean train:train?"),
        ("net:f", ""),
        ("net:g", "takes 3 arguments"),
    ],
)
def test_a_plan_checks_the_trainer_without_importing_it(
    trainer: str, said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "net.py").write_text("raise SystemExit('imported')\ndef f(cfg): pass\ndef g(a, b, c): pass\n")
    assert main(["plan", "conf/sweep.yaml", f"sweep.trainer='{trainer}'"]) == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_a_plan_shows_what_hydra_will_give(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "conf/net").mkdir()
    for name in ("a", "b"):
        (project / f"conf/net/{name}.yaml").write_text("{}\n")
    file = project / "conf/named.yaml"
    file.write_text(
        "defaults: [{net: a}, _self_]\nname: '${hydra:runtime.choices.net}-${hydra:job.override_dirname}'\n"
        "sweep: {name: n, trainer: 'train:train', axes: {net: [b]}}\n"
    )
    assert main(["plan", str(file), "--json"]) == 0
    (shown,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert shown["config"]["name"] == "b-net=b"


def test_a_rerun_from_the_manifest_has_the_same_values_of_hydra(project: Path) -> None:
    (project / "train.py").write_text(
        "import hydra, os\nfrom hydra.core.hydra_config import HydraConfig\n"
        "@hydra.main(version_base='1.1', config_path='conf')\n"
        "def train(cfg):\n"
        "    told = HydraConfig.get()\n"
        "    assert os.path.basename(os.getcwd()) == 'files', os.getcwd()\n"
        "    assert list(told.overrides.task) == [f'x={cfg.x}'], told.overrides.task\n"
        "    return {'loss': told.job.num}\n"
    )
    sweep(project)
    with Reader(SweepFolder(project / "runs/s")) as reader:
        assert [row.metrics for row in reader.trials()] == [{"loss": 0}, {"loss": 1}]
