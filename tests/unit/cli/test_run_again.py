"""What `plan`, `show`, `failures` and `resubmit` say where the code has changed since the sweep was planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import resubmit, run_again
from orchestrator.manifest.stale import keep_used
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended
from orchestrator.model.exact_json import dumps
from orchestrator.provenance.code import keep_code
from tests.unit.cli.support import Command
from tests.unit.manifests import FAILURE, NOW, SUCCESS, begin, plan, run, sweep_spec, trial_id, trial_spec

TRAINER = "def train(cfg):\n    return 1\n"
SWEEP = "seed: 1\nx: 0\nsweep: {name: s, trainer: 'train:train', axes: {x: [1, 2]}}\n"


@pytest.fixture
def project(orchestrate: Command, sweep: Manifest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep's project, whose code is kept: trial 1 is done, trial 2 has failed."""
    place = sweep.folder.path.parent.parent
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(place.parent))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (place / "conf").mkdir()
    (place / "conf/sweep.yaml").write_text(SWEEP)
    (place / "train.py").write_text(TRAINER)
    (place / "unused.py").write_text("")
    code = keep_code(place, sweep.folder.code)
    trials = [trial_spec(number) for number in (1, 2)]
    plan(sweep, trials, spec=sweep_spec(), code=code.code, provenance={"tree": code.tree})
    with sweep.transaction():
        sweep.trials.rerun(3, "all")
    key = begin(sweep, 1, 2, code=code.code)
    with sweep.transaction():
        used = keep_used(sweep.folder, dumps(["train.py"]))
        sweep.attempts.close(key, 2, SUCCESS, Ended(NOW + 10), used)
    run(sweep, 2, FAILURE, attempt=2)
    return place


def test_while_the_code_is_the_same_resubmit_is_the_way(orchestrate: Command, project: Path) -> None:
    last = orchestrate("failures").lines[-1]
    assert last.startswith("orchestrate resubmit s --cause exception   runs those again (after an edit of the code: ")
    (project / "train.py").write_text("# a comment\n" + TRAINER)
    assert orchestrate("failures").lines[-1] == last
    assert "today" not in orchestrate("show", trial_id(2)).out


def test_every_hint_that_would_run_other_code_says_so(orchestrate: Command, project: Path, sweep: Manifest) -> None:
    (project / "train.py").write_text("def train(cfg):\n    return 2\n")
    news = "train.py changed since the sweep was planned"
    todays = "orchestrate sweep conf/sweep.yaml x=1,2 --rerun"
    assert orchestrate("failures").lines[-2:] == [
        f"{news}: {todays} failed runs those with today's code",
        "orchestrate resubmit s --cause exception   runs those with the code of the sweep, as before",
    ]
    assert f"{news}: {todays} failed takes today's" in orchestrate("show", trial_id(2)).out
    assert f"{news}: {todays} stale takes today's" in orchestrate("show", trial_id(1)).out
    lock = orchestrate("resubmit", "s", "--runs", "runs", "--set", "sweep.timeout=1h", "--lost")
    assert lock.out == "s: no trial to run again\n"


def test_an_edit_of_what_a_success_did_not_use_is_no_news(orchestrate: Command, project: Path) -> None:
    """What has failed may be mended by any file."""
    (project / "unused.py").write_text("x = 1\n")
    assert "today" not in orchestrate("show", trial_id(1)).out
    assert "unused.py changed since" in orchestrate("show", trial_id(2)).out
    assert "unused.py changed since" in orchestrate("failures").out


def test_resubmit_names_the_choice_that_takes_these_trials(orchestrate: Command, project: Path) -> None:
    (project / "train.py").write_text("def train(cfg):\n    return 2\n")
    for trials, which in [([1], "stale"), ([2], "failed"), ([1, 2], "all")]:
        words = [word for number in trials for word in ("--trial", trial_id(number))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resubmit, "holder_of", lambda folder: "a coordinator that does not answer")
            patch.setattr(resubmit, "send_request", lambda folder, request: None)
            assert f" --rerun {which} takes today's)" in orchestrate("resubmit", "s", *words).out


def test_resubmit_says_that_the_project_is_gone(
    orchestrate: Command, project: Path, sweep: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resubmit, "holder_of", lambda folder: "a coordinator that does not answer")
    monkeypatch.setattr(resubmit, "send_request", lambda folder, request: None)
    note = "note: the project is not in /no/such/folder any more, so these trials find no data beside the code"
    assert note not in orchestrate("resubmit", "s").out
    with sweep.transaction():
        sweep._db.execute("UPDATE plan SET cwd = '/no/such/folder'")
    assert (
        f"{note} (orchestrate sweep conf/sweep.yaml x=1,2 --rerun failed takes it" in orchestrate("resubmit", "s").out
    )


def test_a_command_leads_to_where_the_sweep_file_is(
    project: Path, sweep: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project was moved, or the sweep copied to another machine: commands are typed where the project is now."""
    current = sweep.plans.current()
    assert current is not None
    gone, here = replace(current, cwd="/no/such/folder"), replace(current, cwd=str(project))
    assert run_again.todays(sweep.folder, gone, "failed").startswith("orchestrate sweep conf/sweep.yaml x=1,2 --rerun")
    monkeypatch.chdir(tmp_path)
    assert run_again.todays(sweep.folder, here, "failed").startswith(f"cd {project} && orchestrate sweep ")


def test_a_project_that_is_elsewhere_tells_nothing(project: Path, sweep: Manifest) -> None:
    current = sweep.plans.current()
    assert run_again.edited(sweep.folder, current) == ""
    (project / "train.py").unlink()
    assert run_again.edited(sweep.folder, current) == "train.py changed since the sweep was planned"
    project.rename(project.with_name("moved"))
    folder = type(sweep.folder)(project.with_name("moved") / "runs" / "s")
    assert run_again.edited(folder, current) == ""
    project.with_name("moved").rename(project)
