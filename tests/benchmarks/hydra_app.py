"""The same trial as a Hydra app, for Hydra's launchers."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore

sys.path.insert(0, str(Path(__file__).parent))
ConfigStore.instance().store(name="config", node={"x": 0, "seconds": 0.0, "folder": ""})


@hydra.main(version_base=None, config_name="config")
def app(cfg: Any) -> None:
    from work import work

    start = time.time()
    work(cfg.seconds)
    slot = os.environ.get("CUDA_VISIBLE_DEVICES") or str(os.getpid())
    with open(Path(cfg.folder) / "times", "a") as file:
        file.write(f"{slot} {start!r} {time.time()!r}\n")


if __name__ == "__main__":
    app()
