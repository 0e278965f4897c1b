"""Weights & Biases. The only importer of wandb."""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import resource
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import wandb

from orchestrator.errors import RefusedError, TrackingError
from orchestrator.ports import SUPERSEDED, TrackedRun, TrackedSweep
from orchestrator.tracking.wandb_mode import mode

# These describe a W&B run that this process may be part of; it is not the run of any trial.
_SURROUNDING = ("RUN_ID", "NAME", "RESUME", "SWEEP_ID", "SWEEP_PARAM_PATH", "JOB_TYPE", "SERVICE", "RUN_DIR", "PROGRAM")
# A run sends what the manifest holds, and collects nothing by itself.
_LEAN: Mapping[str, Any] = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "silent": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
# The user may set each of these, as WANDB_INIT_TIMEOUT or WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL. In whole seconds:
# W&B takes a fraction for 15.
_ONLINE: Mapping[str, Any] = {
    "init_timeout": 20,
    "finish_timeout": 60,
    "x_file_stream_transmit_interval": 2,
    "x_file_stream_retry_max": 1_000_000,  # giving up would lose the rest of the run
    "x_file_stream_retry_wait_min_seconds": 1,
    "x_file_stream_retry_wait_max_seconds": 10,
    "x_graphql_retry_wait_min_seconds": 1,
    "x_graphql_retry_wait_max_seconds": 5,
}
_LONGEST_NAME = 120  # W&B takes no longer ones
# What W&B's messages say when the network or the server is at fault, and not the run.
_OUT = re.compile(r"deadline|time(d )?out|while retrying|connection|EOF|HTTP (5|429)|error 5|in use|abandoned", re.I)
_NO = re.compile(r"(HTTP|error) 4(?!08|29)\d\d")  # a run that was deleted, for one


class WandbTracker:
    """Runs of one sweep in W&B: online while they go on, or offline as one whole file each."""

    def __init__(self, sweep: TrackedSweep) -> None:
        """Goes online if the user is logged in and wants to be. Raises TrackingError for a sync without a login."""
        options: Mapping[str, Any] = sweep.options
        for name in _SURROUNDING:
            os.environ.pop(f"WANDB_{name}", None)
        os.environ["WANDB_SILENT"] = "true"
        if options.get("base_url"):
            os.environ.setdefault("WANDB_BASE_URL", str(options["base_url"]))
        _allow_many_files()
        wanted = sweep.sync or mode(options) not in ("offline", "dryrun")
        os.environ["WANDB_MODE"] = "online" if wanted else "offline"  # read by wandb's own settings
        self.server = str(wandb.setup().settings.base_url)
        self.live = wanted and _logged_in(self.server)
        if sweep.sync and not self.live:
            raise TrackingError("not logged in to W&B", where=self.server, fix="wandb login, or set WANDB_API_KEY")
        self.destination = "online" if self.live else "offline"
        self._options = options
        self._group = str(os.environ.get("WANDB_RUN_GROUP") or options.get("group") or sweep.name)
        self._project = str(os.environ.get("WANDB_PROJECT") or options.get("project") or sweep.name)
        self._entity = os.environ.get("WANDB_ENTITY") or options.get("entity") or None
        self._folder = Path(os.environ.get("WANDB_DIR") or options.get("dir") or sweep.folder)
        self._draft = sweep.folder / ".tracking"  # of runs that go on; on the same disk, so that a file appears at once
        self._runs: dict[str, wandb.Run] = {}
        self._address: str | None = None
        self.dead = False  # W&B's own process has ended, and all its runs with it
        shutil.rmtree(self._draft, ignore_errors=True)

    def start(self, run: TrackedRun) -> int:
        folder = self._draft / run.run_id
        folder.mkdir(parents=True, exist_ok=True)
        settings = dict(_LEAN)
        if self.live:
            own = {key: value for key, value in _ONLINE.items() if f"WANDB_{key.upper()}" not in os.environ}
            settings |= own | {"finish_timeout_raises": True, "x_skip_transaction_log": True}
        # The button "Stop run" would interrupt this process, which is not the trial.
        settings |= {"stop_fn": _ignore, "x_start_time": run.started}
        try:
            handle = wandb.init(
                project=self._project,
                entity=self._entity,
                id=run.run_id,
                name=run.name[:_LONGEST_NAME],
                group=self._group,
                job_type="trial",
                tags=self._tags(run.tags),
                notes=os.environ.get("WANDB_NOTES") or self._options.get("notes"),
                config={**run.config, "sweep": _sweep(run.sweep)},  # no trial's config has a `sweep` of its own
                dir=str(folder),
                mode="online" if self.live else "offline",
                resume="allow" if self.live else None,
                reinit="create_new",
                settings=wandb.Settings(**settings),
            )
        except Exception as error:
            _abandon(run.run_id)
            raise self._trouble(error) from error
        self._runs[run.run_id] = handle
        if self.live and self._address is None:
            self._address = f"{handle.project_url}/groups/{quote(self._group, safe='')}"
        return int(handle.starting_step)

    def log(self, run_id: str, step: int, metrics: Mapping[str, float], time: float) -> None:
        try:
            # W&B takes a step once and never an earlier one; without `commit` the last one would be lost.
            self._runs[run_id].log({"_timestamp": time, **metrics}, step=step, commit=True)
        except Exception as error:
            self._runs.pop(run_id, None)
            raise self._trouble(error) from error

    def finish(self, run_id: str, exit_code: int, tags: Sequence[str]) -> None:
        handle = self._runs.pop(run_id)
        try:
            before = handle.tags or ()
            wanted = tuple(dict.fromkeys([*(tag for tag in before if tag != SUPERSEDED), *tags]))
            if set(wanted) != set(before):
                handle.tags = wanted
            handle.finish(exit_code=exit_code)
        except Exception as error:
            raise self._trouble(error) from error
        if not self.live:
            self._publish(run_id)
        shutil.rmtree(self._draft / run_id, ignore_errors=True)

    def address(self) -> str | None:
        return self._address

    def close(self) -> None:
        wandb.teardown()
        shutil.rmtree(self._draft, ignore_errors=True)

    def _tags(self, tags: Sequence[str]) -> tuple[str, ...]:
        from_user = filter(None, os.environ.get("WANDB_TAGS", "").split(","))
        return tuple(dict.fromkeys([*self._options.get("tags", ()), *from_user, *tags]))

    def _publish(self, run_id: str) -> None:
        """Move the file of a whole run to where the user finds it, in the place of older ones.

        Two files of one id must not be synced.
        """
        home = self._folder / "wandb"
        home.mkdir(parents=True, exist_ok=True)
        for old in home.glob(f"offline-run-*-{run_id}*"):
            shutil.rmtree(old, ignore_errors=True)
        for new in (self._draft / run_id).glob(f"*/offline-run-*-{run_id}*"):
            shutil.move(new, home / new.name)

    def _trouble(self, error: Exception) -> TrackingError:
        """Why, in words."""
        self.dead = self.dead or isinstance(error, ConnectionError) or "Mailbox" in type(error).__name__
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, wandb.errors.AuthenticationError) or re.search(r"\b40[13]\b", text):
            return RefusedError(f"W&B refuses the login: {text}", where=self.server, fix="wandb login --relogin")
        if _NO.search(text) or (isinstance(error, wandb.errors.Error) and not _OUT.search(text)):
            return RefusedError(f"W&B does not take the run: {text}", where=self.server, fix="orchestrate sync, later")
        return TrackingError(f"W&B cannot be reached: {text}", where=self.server, fix="try again when it is up")


def _sweep(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """W&B would read dots in a key as nesting."""
    return {**facts, "axes": {key.replace(".", "/"): value for key, value in facts["axes"].items()}}


def _abandon(run_id: str) -> None:
    """Make W&B's own process forget a run whose start failed; otherwise it refuses the next try as "in use".

    The run has to be told to exit first: asked to forget a run that was not, that process blocks for all runs.
    """
    with contextlib.suppress(Exception):
        service = wandb.setup().assert_service()
        _, interface = service.inform_attach(attach_id=run_id)
        interface.deliver_exit(1).wait_or(timeout=10)
        service.inform_finish(run_id=run_id)


def _logged_in(server: str) -> bool:
    """Whether there are credentials for the server. Asks no network."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if wandb.setup().settings.api_key:
        return True
    host = urlsplit(server).netloc
    try:
        found = netrc.netrc(Path(os.environ.get("NETRC") or "~/.netrc").expanduser())
    except (OSError, netrc.NetrcParseError):
        return False
    return any(name in found.hosts for name in (host, host.replace("api.", "", 1)))


def _allow_many_files() -> None:
    """Each live run holds about five files; beyond the limit runs would vanish silently."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if 0 < hard < 65536 else 65536, hard))


def _ignore() -> None:
    """Nothing is to be done."""
