"""README and docs tell the truth: what they show is run."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.main import COMMANDS
from tests.ray.support import Project

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cluster/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def joined(block: str) -> list[str]:
    """Lines, with those that end in a backslash continued."""
    return block.replace("\\\n", " ").splitlines()


def commands(text: str) -> list[list[str]]:
    """Every `orchestrate …` line of the shell blocks."""
    lines = [line.partition("#")[0].strip() for block in blocks(text, "bash") for line in joined(block)]
    words = [shlex.split(re.sub(r"^(\w+=\S+ )+", "", line)) for line in lines]
    return [line for line in words if line and line[0] == "orchestrate"]


def test_the_sweep_block_is_the_shipped_one() -> None:
    """Key by key, what README shows stands in conf/sweep.yaml."""
    (shown,) = (yaml.safe_load(block) for block in blocks(README, "yaml") if block.startswith("sweep:"))
    shipped = yaml.safe_load((ROOT / "conf" / "sweep.yaml").read_text(encoding="utf-8"))
    assert shown["sweep"] == shipped["sweep"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for words in commands(text):
        assert words[1] in COMMANDS or words[1].startswith("-"), words
    for target in re.findall(r"^make (\w+)", "\n".join(blocks(text, "bash")), re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_the_trainer_of_the_readme(project: Project) -> None:
    (code,) = [block for block in blocks(README, "python") if "def train" in block]
    (project.root / "mine.py").write_text(code.replace("loss = ...", "loss = 1 / (epoch + 1)"))
    project.sweep("sweep.trainer=mine:train", "x=0", "+epochs=3")
    (trial,) = project.trials()
    assert trial["metrics"] == {"valid/loss": 1 / 3}
    assert (project.runs / "work" / "trials" / trial["trial_id"] / "files" / "notes.txt").exists()


def test_coming_from_hydra(project: Project) -> None:
    """An existing Hydra app: one file is added, nothing else changes."""
    (project.root / "app.py").write_text(
        "import hydra\n\n\n"
        "@hydra.main(version_base=None, config_path='conf', config_name='config')\n"
        "def main(cfg):\n    return cfg.lr * 2\n\n\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    conf = project.root / "conf"
    (conf / "config.yaml").write_text("lr: 0.1\n")
    (conf / "sweep").mkdir()
    (conf / "sweep" / "lr.yaml").write_text(
        "trainer: app:main\naxes: {lr: [0.1, 0.2]}\nobjective: loss\nresources: {gpus: 1}\ntracking: {wandb: false}\n"
    )
    project.run("sweep", "conf/config.yaml", "sweep=lr")
    assert [trial["metrics"] for trial in project.trials()] == [{"loss": 0.2}, {"loss": 0.4}]


def test_the_quick_start(project: Project) -> None:
    """The shipped sweep on two of its trials, and every look at it that README shows."""
    for name in ("conf", "trainers"):
        shutil.rmtree(project.root / name, ignore_errors=True)
        shutil.copytree(ROOT / name, project.root / name)
    project.run("sweep", "conf/sweep.yaml", "--limit", "2", "sweep.tracking.wandb=false")
    for words in [line for line in commands(README) if line[1:2] == ["trials"] and "--where" not in line]:
        assert "valid/accuracy (best)" in project.run(*words[1:])
    csv = project.run("trials", "--where", "optimizer=SGD", "--format", "csv")
    trial_id = csv.splitlines()[1].partition(",")[0]
    trial_folder = project.runs / "address-tagging" / "trials" / trial_id
    assert "StreetName" in next(trial_folder.glob("files/*")).read_text()
    assert "orchestrate resubmit address-tagging --trial" in project.run("show", trial_id[:4])
    assert project.run("logs", trial_id[:4]) == ""  # this trainer prints nothing
    page = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
    queries = [block.replace("6065", trial_id[:4]) for block in blocks(page, "sql")]
    queries += re.findall(r'"(SELECT[^"]+)"', page)
    for query in queries:
        with sqlite3.connect(project.runs / "address-tagging" / "manifest.db") as db:
            assert db.execute(query).fetchall(), query
        db.close()
