"""A sweep is a folder: the paths in it, and the sweeps below a folder."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ManifestError, NotFoundError, nearest


@dataclass(frozen=True)
class SweepFolder:
    """Paths of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def argument(self) -> str:
        """How a command names this sweep: by its name where that is enough here, else by its path."""
        if self.path == runs_root(None) / self.name:
            return shlex.quote(self.name)
        here = Path.cwd()
        return shlex.quote(str(self.path.relative_to(here) if here in self.path.parents else self.path))

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.db"

    @property
    def tracking(self) -> Path:
        return self.path / "tracking"

    def tracker_ledger(self, tracker: str) -> Path:
        """What has been delivered to this tracker."""
        return self.tracking / f"{tracker}.db"

    def tracker_lock(self, tracker: str) -> Path:
        """Held by the process that delivers to this tracker."""
        return self.tracking / f"{tracker}.lock"

    def tracker_log(self, tracker: str) -> Path:
        """What this tracker's process prints."""
        return self.tracking / f"{tracker}.log"

    @property
    def ledger_0_1(self) -> Path:
        """The ledger of version 0.1, which had one tracker."""
        return self.path / "tracker.db"

    @property
    def tracker_lock_0_1(self) -> Path:
        return self.path / "tracker.lock"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def uid(self) -> Path:
        """Holds the sweep's uid. A node that reads the same text at this path sees this very folder."""
        return self.path / "uid"

    @property
    def requests(self) -> Path:
        return self.path / "requests"

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance"

    @property
    def log(self) -> Path:
        """What a detached coordinator prints."""
        return self.path / "sweep.log"

    def trial(self, trial_id: str) -> Path:
        return self.path / "trials" / trial_id

    def attempt_log(self, trial_id: str, attempt: int) -> Path:
        return self.trial(trial_id) / f"attempt-{attempt}.log"


def runs_root(runs: str | None) -> Path:
    """Where sweeps are kept: `--runs`, else ORCHESTRATE_RUNS, else ./runs."""
    return Path(runs or os.environ.get("ORCHESTRATE_RUNS") or "runs").expanduser().absolute()


def create_folder(root: Path, name: str) -> SweepFolder:
    """Make a sweep's folder, unless it exists. Raises ManifestError."""
    folder = SweepFolder(root / name)
    try:
        ours, made = _holds_only_sweeps(root), not folder.path.exists()
        folder.path.mkdir(parents=True, exist_ok=True)
        if ours:
            _hide_from_git(root)
        elif made:
            _hide_from_git(folder.path)
        folder.requests.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def _holds_only_sweeps(root: Path) -> bool:
    """Whether nothing but sweeps is in there: it may be the user's project, as with `--runs .`."""
    if not root.is_dir():
        return True
    folders = [SweepFolder(path) for path in root.iterdir() if path.name != ".gitignore"]
    return all(folder.requests.is_dir() or folder.manifest.is_file() for folder in folders)


def _hide_from_git(folder: Path) -> None:
    with contextlib.suppress(FileExistsError), open(folder / ".gitignore", "x") as file:
        file.write("*\n")


def files_folder(folder: SweepFolder, storage: str | None, project: str, uid: str) -> SweepFolder:
    """The folder where trials keep their files: the sweep's own, or one below `sweep.storage` with the same layout.

    That one has the sweep's uid in its name: another sweep of this name does not meet it.
    """
    return SweepFolder(Path(project, Path(storage).expanduser()) / f"{folder.name}-{uid[:8]}") if storage else folder


def open_files_folder(files: SweepFolder, uid: str) -> None:
    """Make that folder, with the uid by which nodes recognise it. Raises ManifestError."""
    try:
        files.path.mkdir(parents=True, exist_ok=True)
        files.uid.write_text(uid, encoding="utf-8")
    except OSError as error:
        raise ManifestError(
            f"cannot write: {error.strerror or error}", where=f"sweep.storage: {files.path}", fix="name another folder"
        ) from error


def discard_folder(folder: SweepFolder, folder_too: bool, root_too: bool) -> None:
    """Undo `create_folder` for a sweep of which no plan was written; what was there before stays."""
    if folder_too:
        shutil.rmtree(folder.path, ignore_errors=True)
    else:
        for ending in ("", "-wal", "-shm", "-journal"):  # but not the backup
            folder.manifest.with_name(folder.manifest.name + ending).unlink(missing_ok=True)
    root = folder.path.parent
    if root_too and [path.name for path in root.iterdir()] == [".gitignore"]:
        shutil.rmtree(root, ignore_errors=True)


def unwritable(folder: SweepFolder, error: OSError) -> ManifestError:
    return ManifestError(
        f"cannot write: {error.strerror or error}",
        where=str(folder.path),
        fix="free the disk, make the folder writable, or choose another place with --runs DIR",
    )


def all_sweeps(root: Path) -> list[SweepFolder]:
    """All sweeps below `root`, the one that was written last first."""
    found = [SweepFolder(path.parent) for path in root.glob("*/manifest.db")]
    return sorted(found, key=lambda folder: -_touched(folder))


def find_folder(root: Path, sweep: str | None) -> SweepFolder:
    """The sweep of that name or folder; the latest one for None. Raises NotFoundError."""
    if sweep is not None and (Path(sweep) / "manifest.db").is_file():
        return SweepFolder(Path(os.path.abspath(sweep)))
    known = all_sweeps(root)
    if sweep is None:
        if not known:
            raise NotFoundError("no sweep here yet", where=str(root), fix="orchestrate sweep conf/sweep.yaml")
        return known[0]
    for folder in known:
        if folder.name == sweep:
            return folder
    near = nearest(sweep, [folder.name for folder in known])
    hint = f"did you mean {near}?" if near else "orchestrate ls lists them"
    raise NotFoundError(f"no sweep named {sweep!r}", where=str(root), fix=hint)


def _touched(folder: SweepFolder) -> float:
    """When the sweep was last written, seconds since the epoch."""
    times = []
    for name in ("manifest.db", "manifest.db-wal", "lock"):
        try:
            times.append((folder.path / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
