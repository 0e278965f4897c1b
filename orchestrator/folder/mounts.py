"""Which file system a path is on, and whether other machines see it too."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("/proc/mounts")
_NETWORK = (  # how the names of network file systems begin
    *("nfs", "cifs", "smb", "9p", "afs", "ceph", "coda", "virtiofs", "vboxsf", "vmhgfs", "prl_fs"),
    *("lustre", "gpfs", "beegfs", "glusterfs", "wekafs", "panfs", "pvfs2", "orangefs", "gfs2", "ocfs2"),
)
_LOCAL_FUSE = ("fuse.fuse-overlayfs",)  # any other `fuse.NAME` may be a network's


@dataclass(frozen=True)
class Mount:
    """A file system, and where it is mounted."""

    point: str = "/"
    kind: str = "unknown"

    @property
    def network(self) -> bool:
        """Whether other machines may see the same files: then locks and shared memory may not reach all who do."""
        if self.kind == "fuse" or self.kind.startswith("fuse."):
            return self.kind not in _LOCAL_FUSE
        return self.kind.startswith(_NETWORK)

    def __str__(self) -> str:
        return f"{self.point} ({self.kind})"


def mount_of(path: Path, table: Path = TABLE) -> Mount:
    """The innermost mount that a path is on, by a table of the kernel's form."""
    try:
        lines = os.fsdecode(table.read_bytes()).splitlines()
    except OSError:
        return Mount()
    target, best = str(path.resolve()), Mount("", "unknown")
    for line in lines:
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1])  # a space is \040
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.point):
            best = Mount(point, words[2])
    return best if best.point else Mount()
