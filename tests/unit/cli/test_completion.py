"""What the shell is offered to complete a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.writer import Manifest
from tests.unit.manifests import trial_id

CONF = Path(__file__).parents[3] / "conf"
# Answers each line in a process of its own, as a shell would have it done; the imports are made once.
ANSWERS = """
import json, os, sys
from orchestrator.cli import completion, main
found = {}
for line in json.load(sys.stdin):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 8)
        os.environ.update(_ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), _ARGCOMPLETE_IFS="\\n")
        main.main([])
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found[line] = [word.rstrip() for word in pipe.read().split("\\n")]
    os.waitpid(child, 0)
heavy = {"ray", "torch", "hydra", "wandb", "numpy"} & set(sys.modules)
assert not heavy, heavy
print(json.dumps(found))
"""
EXPECTED = {
    "st": ["status", "stop"],
    "status ": ["s", "another", "--runs", "--json", "--watch"],
    "show ": ["best", "last", "another/"],
    "show s/be": ["s/best"],
    f"logs s/{trial_id(1)[:3]}": [f"s/{trial_id(1)[:8]}"],
    "resubmit b": ["best"],
    "resubmit s --cause ": ["exception", "train.py:7"],
    "trials --st": ["--state"],
    "trials --state fa": ["failed"],
    "trials s --sort v": ["valid/acc", "valid/loss"],
    "trials s --columns trial_id,opt": ["trial_id,optimizer", "trial_id,optimizer.lr"],
    "trials s --where op": ["optimizer=", "optimizer.lr="],
    "trials s --where optimizer=ad": ["optimizer=adam"],
    "sweep conf/sweep.yaml op": ["optimizer="],
    "sweep conf/sweep.yaml optimizer=SGD,ad": ["optimizer=SGD,adam"],
    "trials nowhere --sort ": [],
}


def test_the_shell_is_offered_what_fits(sweep: Manifest, another: SweepFolder) -> None:
    place = sweep.folder.path.parent.parent
    (place / "conf").symlink_to(CONF)
    os.utime(another.manifest)
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS],
        input=json.dumps([f"orchestrate {line}" for line in EXPECTED]),
        cwd=place,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for line, words in EXPECTED.items():
        assert set(words) <= set(found[f"orchestrate {line}"]), (line, found[f"orchestrate {line}"])
    assert "--json" not in found["orchestrate trials s --sort v"]
