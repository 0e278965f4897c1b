"""Checks, while Ray starts, that the trainer can be imported and called, in the process that its trials come from.

The first zygote is started as soon as the copy of the code exists; the check is how its import goes. Workers on this
machine get copies of that zygote, so that no first trial waits for the same imports again.
"""

from __future__ import annotations

import dataclasses
import os
import select
from collections.abc import Sequence

from orchestrator.errors import TrainerError
from orchestrator.node.launch.zygote_pool import Zygote
from orchestrator.node.shared.zygote_spec import ZygoteSpec
from orchestrator.text import shortened

_LONGEST = 2_000  # characters of a line that the import has printed
_GUARD = "put what ends it below `if __name__ == '__main__':`"
PATIENCE = 300.0  # seconds an import may take


class TrainerCheck:
    """A check under way, and the zygote that does it."""

    def __init__(
        self, spec: ZygoteSpec, gpus: Sequence[str] = (), shared: bool = False, patience: float = PATIENCE
    ) -> None:
        """`gpus`: what the import sees. `shared`: workers that this process starts from now on get copies."""
        self._trainer, self._patience = spec.trainer, patience
        self._printed = os.memfd_create("printed")
        owned = Zygote.owned(spec, gpus, self._printed) if shared else None
        self._zygote = owned or Zygote.start(gpus, spawn=False)
        self._shared = owned is not None
        if not self._shared:  # import the trainer, and do nothing on its trials' behalf
            self._zygote.import_early(dataclasses.replace(spec, start="spawn"), self._printed)

    def result(self) -> None:
        """Wait for it. Raises TrainerError if the trainer cannot be imported or called."""
        if not select.select([self._zygote.socket], [], [], self._patience)[0]:
            self.close()
            raise self._error(
                f"its import takes more than {self._patience:.0f} s", fix="import heavy things inside train"
            )
        message = self._zygote.receive() or {}
        if "checked" not in message:
            raise self._error(f"its import ends the process: {self._last_words(message)}", _GUARD)
        if message["checked"]:
            raise self._error(**message["checked"])
        if not self._shared:
            self._zygote.close()

    def close(self) -> None:
        """End the zygote and its copies."""
        self._zygote.close()
        if self._printed >= 0:
            os.close(self._printed)
            self._printed = -1

    def _error(self, what: str, fix: str | None = None) -> TrainerError:
        return TrainerError(what, where=f"sweep.trainer ({self._trainer})", fix=fix)

    def _last_words(self, message: dict[str, list[int]]) -> str:
        """The last line that the import printed, or how its process ended."""
        lines = os.pread(self._printed, os.fstat(self._printed).st_size, 0).decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        if said:
            return shortened(said[-1], _LONGEST)
        return (
            f"exit code {os.waitstatus_to_exitcode(message['died'][0])}" if "died" in message else "it left no message"
        )
