"""The same trials under Ray Tune and under Hydra's launchers: a process of its own, started by the benchmarks.

Every trial appends "slot start end" to FOLDER/times. Exit code 0: all of them succeeded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Tune's best setting: actors stay, no loggers, no output, hardly a snapshot of the experiment.
FAST = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
}
LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.remote.num_gpus=1", "+hydra.launcher.ray.remote.num_cpus=1"],
}


def note(folder: str, slot: str, start: float) -> None:
    """One line of the account; appended whole."""
    with open(Path(folder) / "times", "a") as file:
        file.write(f"{slot or '-'} {start!r} {time.time()!r}\n")


def slot() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=["tune", "tune-reuse", "tune-best", "tune-reports", "hydra-joblib", "hydra-ray"])
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--reports", type=int, default=1)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--folder", required=True)
    options = parser.parse_args()
    if options.who.startswith("hydra"):
        run_hydra(options)
    else:
        run_tune(options)


# ---------------------------------------------------------------- Ray Tune


def run_tune(options: argparse.Namespace) -> None:
    if options.who == "tune-best":
        os.environ.update(FAST)
    import ray
    from ray import tune

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    share = 4 / options.slots
    trainable = {"tune": simple, "tune-reports": reporting, "tune-reuse": reused(), "tune-best": reused()}[options.who]
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": share, "gpu": share}),
        param_space={
            "x": tune.grid_search(list(range(options.trials))),
            "seconds": options.seconds,
            "reports": options.reports,
            "trials": options.trials,
            "folder": options.folder,
        },
        tune_config=tune.TuneConfig(reuse_actors=options.who in ("tune-reuse", "tune-best")),
        run_config=tune.RunConfig(
            storage_path=str(Path(options.folder) / "results"),
            **(quiet() if options.who == "tune-best" else {}),
        ),
    )
    results = tuner.fit()
    assert len(results) == options.trials, len(results)
    assert results.num_errors == 0, results.errors[:1]


def quiet() -> dict[str, Any]:
    from ray import tune

    return {"verbose": 0, "checkpoint_config": tune.CheckpointConfig(checkpoint_at_end=False)}


def simple(config: dict[str, Any]) -> None:
    """As most people write it."""
    from ray import tune
    from work import work

    start = time.time()
    total = work(config["seconds"])
    note(config["folder"], slot(), start)
    tune.report({"total": total})


def reused() -> type:
    from ray import tune

    class Reused(tune.Trainable):  # type: ignore[misc]
        """One actor runs many trials, one after the other, with whatever the last one left behind."""

        def setup(self, config: dict[str, Any]) -> None:
            self.settings = config

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.settings = new_config
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing to keep, but Tune asks at each end unless told not to."""

        def step(self) -> dict[str, Any]:
            from work import work

            start = time.time()
            total = work(self.settings["seconds"])
            note(self.settings["folder"], slot(), start)
            return {"total": total, "done": True}

    return Reused


def reporting(config: dict[str, Any]) -> None:
    """Wait until all trials are here, then report as fast as Tune takes it."""
    from ray import tune

    meet = Path(config["folder"]) / "meet"
    meet.mkdir(exist_ok=True)
    (meet / str(config["x"])).touch()
    while len(os.listdir(meet)) < config["trials"]:
        time.sleep(0.05)
    start = time.time()
    for step in range(config["reports"]):
        tune.report({"loss": 1.0 / (step + 1), "step": step})
    note(config["folder"], slot(), start)


# ---------------------------------------------------------------- Hydra


def run_hydra(options: argparse.Namespace) -> None:
    """`hydra_app.py -m`, as its users run it."""
    launcher = options.who.removeprefix("hydra-")
    words = list(LAUNCHERS[launcher])
    words += [f"hydra.launcher.n_jobs={options.slots}"] if launcher == "joblib" else []
    if launcher == "ray":  # it would start a Ray of its own, with a size that a running one refuses
        words += [f"hydra.launcher.ray.init.address={os.environ['RAY_ADDRESS']}"]
        words += ["+hydra.launcher.ray.init.object_store_memory=null"]
    app = Path(__file__).with_name("hydra_app.py")
    command = [sys.executable, str(app), "-m", *words, f"x=range({options.trials})", f"seconds={options.seconds}"]
    places = [f"folder={options.folder}", f"hydra.sweep.dir={options.folder}/multirun"]
    subprocess.run([*command, *places], check=True, cwd=options.folder)
    count = len((Path(options.folder) / "times").read_text().splitlines())
    assert count == options.trials, count


if __name__ == "__main__":
    main()
