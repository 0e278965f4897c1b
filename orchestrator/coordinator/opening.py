"""Writes the plan of a sweep, or reopens some of its trials: all that is checked before anything runs.

If anything about a plan is wrong, a new sweep leaves nothing behind.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import naming
from orchestrator.coordinator import resubmission
from orchestrator.coordinator.session import Launch, RunLimits, Session, hold
from orchestrator.coordinator.trainer_check import TrainerCheck
from orchestrator.decide import slots
from orchestrator.errors import ConfigError, ManifestError, ResourceError
from orchestrator.executors.gpus import Claim
from orchestrator.folder.paths import create_folder, discard_folder, files_folder, open_files_folder
from orchestrator.language import plan_changes
from orchestrator.language.planning import SweepPlan
from orchestrator.manifest.writer import Manifest
from orchestrator.model import trainer
from orchestrator.model.sweep import SweepSpec
from orchestrator.node.shared.zygote_spec import ZygoteSpec, shell_variables
from orchestrator.ports import Executor
from orchestrator.provenance.code import Code, check_copy, import_path, keep_code, link_data
from orchestrator.provenance.copy_watch import CopyWatch
from orchestrator.provenance.environment import environment


def plan_sweep(
    root: Path,
    plan: SweepPlan,
    project: Path,
    rerun: str | None,
    limits: RunLimits,
    start_executor: Callable[[], Executor],
    here: Claim | None = None,
) -> Session:
    """Take the sweep and make its plan durable. If anything about the plan is wrong, a new sweep leaves nothing behind.

    `here`: the GPUs of the executor's workers, if it starts them on this machine, with this process's environment; they
    are released if there is nothing to run.
    """
    with _held(root, plan.spec.name) as session:
        manifest, (code, facts) = session.manifest, _checked(session, plan, project, limits, here)
        with manifest.transaction():
            manifest.attempts.recover(session.now())
            before = manifest.plans.current()
            if limits.add and before is not None and before.spec.trainer != plan.spec.trainer:
                raise _other_trainer(before.spec, plan.spec)
            number = manifest.plans.begin(plan.spec, str(plan.file), plan.overrides, facts, code.code, str(project))
            total = manifest.plans.add_trials(number, plan.trials())
            if limits.add:
                total += manifest.plans.keep_last(number, total)
            session.notes += _of_last_plan(manifest, number, plan)
            summary = plan.summary()
            manifest.plans.finish(number, total, summary.excluded, summary.duplicates)
            manifest.plans.judge(plan.spec.objective)
            manifest.trials.resume_cancelled(number)
            if rerun:
                manifest.trials.rerun(number, rerun)
            session.notes += _of_results(manifest.trials.reseeded(number))
            sizes = manifest.trials.waiting_resources(number, limits.trials)
            if sizes:
                _prepare(session, Launch(start_executor, sizes, here), limits.wait)
            elif here is not None:
                here.release()
            assert session.check is not None
            session.check.result()
        session.plan = manifest.plans.current()
    return session


@contextmanager
def _held(root: Path, name: str) -> Iterator[Session]:
    """Hold a sweep, and release it if the block raises; what was not there before is deleted then."""
    made_root, made_folder = not root.exists(), not (root / name).exists()
    folder = create_folder(root, name)
    session = hold(folder)
    try:
        yield session
    except BaseException:
        try:
            if session.check is not None:
                session.check.close()  # it may be writing into the copy of the code
            ours = session.lock.held and session.manifest.in_place
            if ours and session.manifest.plans.current() is None:  # so nobody else uses it
                session.manifest.close()
                discard_folder(folder, made_folder, made_root)
        finally:
            session.release()
        raise


def _checked(
    session: Session, plan: SweepPlan, project: Path, limits: RunLimits, here: Claim | None
) -> tuple[Code, dict[str, Any]]:
    """Keep the code, and begin to check that the trainer can be imported; returns the code and what is kept of it."""
    code = keep_code(project, session.folder.code, plan.spec.code)
    session.watch = CopyWatch(code.path)
    _open_files(session, plan.spec, str(project))
    gpus = slots.first_gpus(here.ids if here else (), plan.spec.resources)
    session.check = TrainerCheck(_zygote_spec(plan.spec, code, project, gpus), gpus, shared=here is not None)
    facts = {
        **environment(project, session.folder.provenance),
        "tree": code.tree,
        # Without --add, the command that goes on would drop the trials that the plan has kept.
        "options": [*plan.options, *(["--add"] if limits.add else [])],
    }
    missing = [name for name in plan.spec.env if name not in os.environ]
    if missing:
        session.notes.append(
            f"sweep.env: not set in this shell, so trials have what their node has: {', '.join(missing)}"
        )
    session.notes += [*code.notes, *facts.get("problems", ())]
    return code, facts


def _prepare(session: Session, launch: Launch, wait: bool) -> None:
    """Start the executor, unless others use the GPUs that it needs: `await_gpus` does then. Raises ResourceError."""
    session.launch = launch
    if launch.here is not None:
        launch.here.check(launch.sizes)
    if not launch.short:
        session.executor = launch.executor()
    elif not wait:
        raise ResourceError(
            f"others use the GPUs that a trial needs: {launch.users}",
            where="this machine",
            fix="without --no-wait the sweep waits for them; sweep.resources.gpus=0 runs the trials on the CPU",
        )


def _other_trainer(before: SweepSpec, now: SweepSpec) -> ConfigError:
    return ConfigError(
        f"the trials of the last plan are of another trainer, {before.trainer}: this plan cannot run them",
        where=f"--add: sweep.trainer ({now.trainer})",
        fix=f"start a sweep of its own: sweep.name={now.name}-2",
    )


def _of_last_plan(manifest: Manifest, number: int, plan: SweepPlan) -> list[str]:
    """What the user should know of trials that are not in this plan any more."""
    last = manifest.plans.last(number, plan_changes.SAMPLE)
    if last is None or not last.leaving:
        return []
    return plan_changes.in_words(last, plan.spec, list(itertools.islice(plan.trials(), plan_changes.SAMPLE)))


def _of_results(reseeded: int) -> list[str]:
    """What the user should know of results that stay."""
    if not reseeded:
        return []
    made = f"the {'result' if reseeded == 1 else 'results'} of {naming.count(reseeded, 'trial')}"
    return [f"{made} came from another seed than sweep.seed gives now (--rerun stale runs them again)"]


def _open_files(session: Session, spec: SweepSpec, project: str) -> None:
    if spec.storage:
        uid = session.manifest.uid
        open_files_folder(files_folder(session.folder, spec.storage, project, uid), uid)


def _zygote_spec(spec: SweepSpec, code: Code, project: Path, gpus: Sequence[str]) -> ZygoteSpec:
    """What the zygotes of this sweep's trials have in common."""
    deterministic = spec.deterministic != "off"
    imports = import_path(code.path)
    env = shell_variables(spec.env)
    return ZygoteSpec(trainer.parse(spec.trainer), imports, str(project), len(gpus), spec.start, deterministic, env)


def reopen(
    session: Session,
    trials: Sequence[str],
    settings: Mapping[str, Any],
    start_executor: Callable[[], Executor],
    here: Claim | None = None,
    *,
    wait: bool = True,
) -> int:
    """Go on with the plan as it was written, except for these settings, and run these trials again; returns how many.

    Fills session.plan, and session.launch where a trial waits. `here`: see `plan_sweep`.
    """
    manifest = session.manifest
    with manifest.transaction():
        manifest.attempts.recover(session.now())
        plan = manifest.plans.current()
        if plan is None:
            raise ManifestError(
                "nothing was planned here yet", where=str(session.folder.path), fix="orchestrate sweep FILE plans it"
            )
        tree = session.folder.code / str(plan.provenance.get("tree", ""))
        check_copy(tree)
        link_data(tree, Path(plan.cwd), session.folder.path.parent, plan.spec.code)
        _open_files(session, plan.spec, plan.cwd)
        session.first, spec = resubmission.apply(manifest, None, plan.spec, trials, settings)
        session.plan = replace(plan, spec=spec)
        if session.first:
            sizes = manifest.trials.waiting_resources(session.plan.plan, None, session.first)
            _prepare(session, Launch(start_executor, sizes, here), wait)
    return len(session.first)
