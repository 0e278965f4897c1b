"""A sweep for the tests of commands, and a way to run commands on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.cli.main import main
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import Objective, State
from tests.unit import manifests
from tests.unit.cli.support import MULTILINE_FAILURE, Command, Output
from tests.unit.manifests import begin, end, plan, report, run, sweep_spec, trial_id, trial_spec


@pytest.fixture
def orchestrate(capsys: pytest.CaptureFixture[str], sweep: Manifest, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in the folder that contains the sweep's `runs`. Output for people has no control characters."""
    monkeypatch.delenv("ORCHESTRATE_RUNS", raising=False)
    monkeypatch.chdir(sweep.folder.path.parent.parent)

    def run_command(*words: str) -> Output:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        found = capsys.readouterr()
        for text in (found.out, found.err) if "csv" not in words else ():  # CSV has the exact text
            assert all(mark.isprintable() or mark == "\n" for mark in text), repr(text)
        return Output(code, found.out, found.err)

    return run_command


@pytest.fixture
def sweep(manifest: Manifest) -> Manifest:
    """Six trials: two done, one failed, one running, one waiting, one cancelled; and one of an earlier plan."""
    overrides = [
        {"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.01},
        {"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.001},
        {"model": "lstm", "optimizer": "SGD", "optimizer.lr": 0.1},
        {"model": "gru", "optimizer": "adam", "optimizer.lr": 0.01},
        {"model": "gru", "optimizer": "SGD", "optimizer.lr": 0.1},
        {"model": "gru\x1b[31m", "optimizer": "two\nlines", "optimizer.lr": 1.0},
    ]
    trials = [
        trial_spec(
            number,
            overrides=settings,
            config={
                "model": {"name": settings["model"]},
                "optimizer": {"lr": settings["optimizer.lr"], "betas": [0.9, 0.99]},
            },
        )
        for number, settings in enumerate(overrides)
    ]
    plan(manifest, [*trials, trial_spec(9)])
    run(manifest, 9, loss=0.0)
    spec = sweep_spec(objective=Objective("valid/acc", "max", "last"))
    plan(manifest, trials, spec=spec)
    run(manifest, 0, **{"valid/acc": 0.75, "valid/loss": 0.5})
    key = begin(manifest, 1)
    for step in range(30):
        report(manifest, key, 1, step, **{"valid/acc": 0.5 + step / 100, "valid/loss": "NaN"})
    end(manifest, key)
    run(manifest, 2, MULTILINE_FAILURE, **{"valid/acc": 0.9})
    report(manifest, begin(manifest, 3), 1, 0, **{"valid/acc": 0.25})
    run(manifest, 5, Outcome(State.CANCELLED, "cancelled"))
    log = manifest.folder.attempt_log(trial_id(0), 1)
    log.parent.mkdir(parents=True)
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(5)))
    return manifest


@pytest.fixture
def another(sweep: Manifest) -> Iterator[SweepFolder]:
    """A second sweep in the same `runs` folder, changed later."""
    folder = manifests.create(sweep.folder.path.parent, "another")
    manifest = Manifest.open(folder)
    plan(manifest, [trial_spec(50)], spec=sweep_spec(name="another", objective=None))
    yield folder
    manifest.close()
