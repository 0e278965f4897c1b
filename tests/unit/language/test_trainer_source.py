"""What is read from a trainer's source: the version of its `@hydra.main`, and what is certainly wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import TrainerError
from orchestrator.language import trainer_source
from orchestrator.language.trainer_source import App
from orchestrator.model import trainer
from tests.unit.language.conf_trees import write

HYDRA = "import hydra\n"
MAIN = "def main(cfg): pass\n"
VERSIONS: dict[str, tuple[dict[str, str], str | None]] = {
    "not given": ({"app.py": f"{HYDRA}@hydra.main(config_path='conf')\n{MAIN}"}, "1.1"),
    "without parentheses": ({"app.py": f"{HYDRA}@hydra.main\n{MAIN}"}, "1.1"),
    "None": ({"app.py": f"{HYDRA}@hydra.main(version_base=None)\n{MAIN}"}, "1.3"),
    "a string": ({"app.py": f"{HYDRA}@hydra.main(version_base='1.2', config_name='x')\n{MAIN}"}, "1.2"),
    "a patch release": ({"app.py": f"{HYDRA}@hydra.main(version_base='1.3.2')\n{MAIN}"}, "1.3"),
    "by position": ({"app.py": f"{HYDRA}@hydra.main('conf', 'config', '1.1')\n{MAIN}"}, "1.1"),
    "a constant": ({"app.py": f"{HYDRA}V = '1.2'\n@hydra.main(version_base=V)\n{MAIN}"}, "1.2"),
    "computed": ({"app.py": f"{HYDRA}@hydra.main(version_base=hydra.__version__)\n{MAIN}"}, None),
    "packed arguments": ({"app.py": f"{HYDRA}@hydra.main(**OPTIONS)\n{MAIN}"}, None),
    "another name": ({"app.py": f"from hydra import main as app\n@app(version_base='1.2')\n{MAIN}"}, "1.2"),
    "another name of the package": ({"app.py": f"import hydra as h\n@h.main(version_base='1.2')\n{MAIN}"}, "1.2"),
    "called": ({"app.py": f"{HYDRA}{MAIN}hydra.main(version_base='1.2')(main)()\n"}, "1.2"),
    "another function's": (
        {"app.py": f"{HYDRA}{MAIN}@hydra.main(version_base='1.2')\ndef cli(cfg): main(cfg)\n"},
        "1.2",
    ),
    "its own, not the other's": (
        {"app.py": f"{HYDRA}@hydra.main()\n{MAIN}@hydra.main(version_base='1.2')\ndef cli(cfg): pass\n"},
        "1.1",
    ),
    "two that differ": (
        {"app.py": f"{HYDRA}{MAIN}@hydra.main()\ndef a(cfg): pass\n@hydra.main('', '', '1.2')\ndef b(cfg): pass\n"},
        None,
    ),
    "none": ({"app.py": MAIN}, None),
    "re-exported": (
        {
            "app/__init__.py": "from .inner import run as main\n",
            "app/inner.py": f"{HYDRA}@hydra.main(version_base='1.2')\ndef run(cfg): pass\n",
        },
        "1.2",
    ),
    "below src": ({"src/app.py": f"{HYDRA}@hydra.main(version_base='1.2')\n{MAIN}"}, "1.2"),
    "not hydra's": ({"app.py": f"import click as hydra\n@hydra.main()\n{MAIN}"}, None),
    "no such file": ({"other.py": ""}, None),
    "not Python": ({"app.py": "def main(:\n"}, None),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_the_version_of_hydra_main_is_read_from_the_source(name: str, tmp_path: Path) -> None:
    files, version = VERSIONS[name]
    write(tmp_path, files)
    assert trainer_source.app_of(trainer.parse("app:main"), tmp_path).version_base == version


def test_a_module_without_hydra_is_no_application_of_it(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": MAIN, "uses.py": f"from hydra.core.hydra_config import HydraConfig\n{MAIN}"})
    assert trainer_source.app_of(trainer.parse("app:main"), tmp_path) == App()
    assert trainer_source.app_of(trainer.parse("uses:main"), tmp_path) == App(uses_hydra=True)


MODULES = {
    "good.py": """
from functools import wraps, partial
import click
from helpers import imported
from pkg.inner import train as reexported
def one(cfg): pass
def both(cfg, run): pass
def defaults(cfg, run=None, more=1): pass
def anything(*args, **more): pass
def positional(cfg, /, run): pass
async def awaited(cfg): pass
class Trainer:
    def __init__(self, cfg, run): pass
@click.command()
def decorated(a, b, c, d): pass
def wrapped(a, b, c): pass
wrapped = partial(wrapped, b=1)
if True:
    def guarded(cfg): pass
else:
    def guarded(): pass
try:
    from nowhere import optional
except ImportError as failed:
    optional = None
with open(__file__) as opened: pass
lazy = lambda cfg: None
(a, b) = one, both
def makes(cfg):
    def inner():
        yield 1
    return [x for x in inner()]
def later():
    global made
    made = one
""",
    "star.py": "from good import *\n",
    "lazy.py": "def __getattr__(name): return print\n",
    "dynamic.py": "globals()['train'] = print\n",
    "bad.py": """
import hydra
def train(cfg): pass
def three(cfg, run, extra): pass
def none(): pass
def needs(cfg, run, *, device): pass
def steps(cfg):
    yield 1
@hydra.main(version_base=None)
def app(cfg, run, extra): pass
""",
    "script.py": "import sys\nprint(sys.argv)\n",
    "broken.py": "import os\ndef train(cfg):\n    retrun 1\n",
    "pkg/__init__.py": "",
    "pkg/inner.py": "def train(cfg): pass\n",
    "pkg/fast.cpython-311-x86_64-linux-gnu.so": "",
    "pathy/__init__.py": "__path__.append('/elsewhere')\n",
}
ACCEPTED = (
    *(
        f"good:{name}"
        for name in ("one", "both", "defaults", "anything", "positional", "awaited", "Trainer", "imported")
    ),
    *(
        f"good:{name}"
        for name in ("decorated", "wrapped", "guarded", "optional", "lazy", "a", "opened", "made", "makes")
    ),
    *("good:reexported", "star:one", "lazy:train", "dynamic:train", "pkg.inner:train", "pkg.fast:train"),
    *("pathy.inner:train", "json:loads", "xml.etree:train", "bad:train"),
)
REFUSED: dict[str, tuple[str, ...]] = {
    "bad:trian": ("bad has no function 'trian'", "did you mean bad:train?"),
    "bad:three": ("takes 3 arguments", "train(cfg, run)"),
    "bad:app": ("takes 3 arguments", "train(cfg, run)"),
    "bad:none": ("takes 0 arguments",),
    "bad:needs": ("needs the argument 'device'",),
    "bad:steps": ("generator", "yield"),
    "script:main": ("script has no function 'main'", "def train(cfg, run)"),
    "broken:train": ("not valid Python", "broken.py:3"),
    "bda:train": ("no module named 'bda'", "did you mean bad:train?"),
    "pkg.iner:train": ("no module named 'pkg.iner'", "pkg/iner.py"),
    "no_such_package.train:main": ("no module named 'no_such_package'",),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write(folder, MODULES)
    return folder


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_may_be_right_is_not_refused(name: str, project: Path) -> None:
    trainer_source.check(trainer.parse(name), project)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_certainly_wrong_is_refused_without_an_import(name: str, project: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        trainer_source.check(trainer.parse(name), project)
    for word in REFUSED[name]:
        assert word in str(caught.value)


def test_a_long_module_is_walked_once_for_the_names_of_hydra(tmp_path: Path) -> None:
    """Not again for each call in it: that took minutes."""
    calls = "\n".join(f"def f{number}(a):\n    print(len(a), max(a), min(a))" for number in range(2000))
    run = "def train(cfg):\n    pass\nrun = main(version_base='1.2')(train)"
    (tmp_path / "long.py").write_text(f"from hydra import main\n{calls}\n{run}\n")
    assert trainer_source.app_of(trainer.parse("long:train"), tmp_path).version_base == "1.2"
