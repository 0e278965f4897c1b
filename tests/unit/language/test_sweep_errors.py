"""A mistake in the sweep file or its configs gives one message: what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.language import planning, sweepfile
from orchestrator.language.config_errors import as_config_error
from tests.unit.language.conf_trees import write

CONF = {
    "model/lstm.yaml": "name: lstm\nhidden: 64\n",
    "model/gru.yaml": "name: gru\n",
    "model/no.yaml": "name: none\n",
    "optimizer/SGD.yaml": "lr: 0.1\nmomentum: 0.9\n",
    "optimizer/adam.yaml": "lr: 0.001\nbetas: [0.9, 0.999]\n",
    "empty/readme.txt": "",
    "db/mysql.yaml": "port: 1\n",
    "db/engine/innodb.yaml": "a: 1\n",
}
HEAD = "defaults: [{model: lstm}, {optimizer: SGD}, _self_]\nseed: 42\ntraining: {epochs: 3}\n"


INNER = ("None", "Exception", "LexerNoViable", "input '", "EOF", ".;", ": ;")  # of the libraries, not of a message


def message_for(tmp_path: Path, text: str, *overrides: str) -> str:
    """The error message for a sweep file."""
    file = write(tmp_path, {"sweep.yaml": text, **CONF})
    with pytest.raises(ConfigError) as caught:
        for _ in planning.load(file, overrides).trials():
            pass
    message = str(caught.value)
    assert "Traceback" not in message
    assert len(message) < 900, message
    assert not [word for word in INNER if word in message], message
    return message


def sweep(body: str, head: str = HEAD) -> str:
    return f"{head}sweep:\n  trainer: trainers.toy:train\n" + "".join(f"  {row}\n" for row in body.splitlines())


CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "YAML syntax": ("seed: [1, 2\nsweep: {}\n", ("sweep.yaml:2", "YAML")),
    "a tab": ("seed: 1\n\tx: 2\n", ("sweep.yaml:2", "YAML")),
    "a key twice": (sweep("repeats: 1\nrepeats: 2"), ("duplicate key repeats", "sweep.yaml:7")),
    "a list for a file": ("- 1\n- 2\n", ("sweep.yaml",)),
    "no sweep section": (HEAD, ("no `sweep` section", "add one")),
    "a sweep section of another kind": (HEAD + "sweep: 3\n", ("sweep",)),
    "no trainer": (HEAD + "sweep: {name: x}\n", ("sweep.trainer", "missing", "module:function")),
    "a trainer that is none": (HEAD + "sweep: {trainer: train}\n", ("sweep.trainer", "module:function")),
    "a file as trainer": (HEAD + "sweep: {trainer: 'train.py:main'}\n", ("sweep.trainer", "expected", "train:main")),
    "a path as trainer": (HEAD + "sweep: {trainer: src/train.py}\n", ("sweep.trainer", "expected", "src.train:train")),
    "a variable with its value": (
        sweep("env: [A_TOKEN=x]"),
        ("sweep.env", "names of variables", "without their values"),
    ),
    "a variable of ours": (sweep("env: [RAY_ADDRESS]"), ("sweep.env", "RAY_ADDRESS is set for each trial")),
    "unknown group": (sweep("axes: {optimzer/x: [SGD]}"), ("optimzer", "'optimizer'", "axes")),
    "unknown group as a key": (sweep("axes: {optimzer: [SGD, adam]}"), ("optimzer", "'optimizer'", "axes")),
    "unknown option": (sweep("axes: {optimizer: [SGD, adm]}"), ("adm", "did you mean 'adam'", "axes.optimizer")),
    "unknown option of the defaults": (
        sweep("axes: {}", HEAD.replace("model: lstm", "model: lstn")),
        ("model/lstn", "did you mean 'lstm'"),
    ),
    "unknown key": (sweep("axes: {training.epoch: [1]}"), ("training.epoch'", "'training.epochs'", "axes")),
    "unknown key in short": (sweep("axes: {training: {epoch: [1]}}"), ("'training.epochs'", "axes.training.epoch")),
    "unknown scoped key": (
        sweep("axes: {optimizer: {SGD: {betas: [[1, 2]]}, adam: {}}}"),
        ("optimizer.betas", "SGD", "axes.optimizer.SGD.betas"),
    ),
    "scoped under no option": (
        sweep("axes: {optimizer: {SDG: {lr: [1]}}}"),
        ("SDG", "did you mean 'SGD'", "axes.optimizer"),
    ),
    "linked rows": (
        sweep("axes: {'seed, training.epochs': [[1, 2], [3]]}"),
        ("2 values", "[3]", "axes.seed, training"),
    ),
    "linked scalars": (sweep("axes: {'seed, training.epochs': [1, 2]}"), ("2 values", "axes.seed")),
    "repeats and the seed": (sweep("repeats: 2\naxes: {seed: [1, 2]}"), ("repeats", "'seed'")),
    "repeats without a seed": (
        sweep("repeats: 2", HEAD.replace("seed: 42\n", "")),
        ("repeats", "'seed'", "sweep.seed"),
    ),
    "a split range": (sweep("axes: {seed: [range(0, 3)]}"), ("range(0", "split", '"range(0, 3)"')),
    "a split range in a mapping": (sweep("axes: {seed: range(0, 3)}"), ("range(0", "split", "quote it")),
    "an option named no": (sweep("axes: {model: [no, lstm]}"), ("boolean", '"no"', "axes.model")),
    "an option named no with a body": (sweep("axes: {model: {no: {}, lstm: {}}}"), ("boolean", '"no"', "axes.model")),
    "a misspelt key": (sweep("retires: 2"), ("sweep.retires", "did you mean 'retries'")),
    "a misspelt key below": (sweep("objective: {metrik: x}"), ("sweep.objective.metrik", "'metric'")),
    "misspelt tracking": (sweep("tracking: {wandb: {projekt: x}}"), ("tracking.wandb.projekt", "'project'")),
    "an unknown tracker": (sweep("tracking: {wand: {}}"), ("sweep.yaml", "tracking.wand", "'wandb'")),
    "a tracker without its file": (sweep("tracking: {jsonl: true}"), ("sweep.tracking.jsonl", "the path of a file")),
    "a tracker's file elsewhere": (sweep("tracking: {jsonl: 's3://b/x'}"), ("sweep.tracking.jsonl", "s3://b/x")),
    "a key for later": (sweep("early_stop: {}"), ("sweep.early_stop", "not supported yet")),
    "a method for later": (
        sweep("search: {method: bayes, trials: 3}"),
        ("bayes", "not supported yet", "search.method"),
    ),
    "an empty axis": (sweep("axes: {seed: []}"), ("empty axis", "axes.seed")),
    "an empty range": (sweep("axes: {seed: 'range(3, 0)'}"), ("empty axis", "axes.seed")),
    "an empty group axis": (sweep("axes: {model: {}}"), ("empty axis", "axes.model")),
    "an empty glob": (sweep("axes: {model: glob(x*)}"), ("empty axis", "axes.model")),
    "a non-finite objective": (sweep("objective: .nan"), ("sweep.objective", "nan")),
    "a mode": (sweep("objective: {metric: a, mode: maximum}"), ("objective.mode", "min, max")),
    "a missing value": (sweep("axes: {}", HEAD + "data: {path: '???'}\n"), ("data.path", "???", "set data.path=")),
    "a missing trainer": (HEAD + "sweep: {trainer: '???'}\n", ("sweep.trainer", "???")),
    "a dangling interpolation": (sweep("axes: {}", HEAD + "x: '${training.epoch}'\n"), ("x", "training.epoch")),
    "a cyclic interpolation": (sweep("axes: {}", HEAD + "x: '${y}'\ny: '${x}'\n"), ("sweep.yaml",)),
    "an unknown resolver": (sweep("axes: {}", HEAD + "x: '${nope:1}'\n"), ("nope", "x")),
    "a name outside": (sweep("name: ../x"), ("sweep.name", "slashes")),
    "a hidden name": (sweep("name: .x"), ("sweep.name", "leading dot")),
    "an empty name": (sweep("name: ''"), ("sweep.name",)),
    "an interval under grid": (sweep("axes: {seed: 'interval(0, 1)'}"), ("interval", "search", "axes.seed")),
    "random without a number": (sweep("search: {method: random}"), ("search.trials", "how many")),
    "a bad log": (
        sweep("search: {method: random, trials: 3}\naxes: {seed: 'tag(log, interval(0, 1))'}"),
        ("logarithmic", "axes.seed"),
    ),
    "bad grammar": (sweep("axes: {seed: 'choice(1,'}"), ("axes.seed",)),
    "nested choice": (sweep("axes: {seed: 'range(1,2,3,4)'}"), ("axes.seed", "literally")),
    "axes of another kind": (sweep("axes: 3"), ("axes", "mapping")),
    "a secret in clear": (sweep("axes: {}", HEAD + "api_key: abc\n"), ("api_key", "${oc.env:API_KEY}")),
    "bad resources": (sweep("resources: {gpus: -1}"), ("resources.gpus", "-1")),
    "one and a half GPUs": (sweep("resources: {gpus: 1.5}"), ("resources.gpus", "whole")),
    "bad resources of a trial": (
        sweep("resources: {gpus: '${model.name}'}"),
        ("resources.gpus", "lstm"),
    ),
    "code outside": (sweep("code: {include: [../lib]}"), ("sweep.code.include", "below the project's folder")),
    "code by another key": (sweep("code: {ignore: [data]}"), ("sweep.code.ignore", "unknown key", "include, exclude")),
    "code of another kind": (sweep("code: data"), ("sweep.code", "include, exclude")),
    "bad memory": (sweep("resources: {memory: lots}"), ("resources.memory", "4GiB")),
    "steps that are none": (sweep("steps: ten"), ("sweep.steps", "whole number", "${training.epochs}")),
    "steps of no key": (sweep("steps: ${training.epoch}"), ("sweep.steps", "did you mean 'training.epochs'")),
    "steps of a text": (sweep("steps: ${model.name}"), ("sweep.steps", "'lstm'", "whole number")),
    "a W&B sweep file": (
        "program: src/train.py\nmethod: bayes\nmetric: {name: val, goal: maximize}\nrun_cap: 5\n"
        "parameters: {lr: {min: 0.1, max: 1.0, distribution: log_uniform_values}, opt: {values: [a, b]}}\n",
        (
            "sweep.yaml: this is a sweep file of W&B, which is not supported yet",
            "sweep: {trainer: src.train:train, objective: {metric: val, mode: max}, ",
            'axes: {lr: "tag(log, interval(0.1, 1.0))", opt: [a, b]}, search: {method: random, trials: 5}}',
        ),
    ),
    "a W&B sweep file below sweep": (
        HEAD + "sweep: {program: train.py, method: grid, parameters: {a: {parameters: {b: {value: true}}}}}\n",
        ("sweep.yaml: sweep: this is a sweep file of W&B", "sweep: {trainer: train:train, axes: {a.b: true}}"),
    ),
    "an option of a folder below": (
        sweep("axes: {db: [engine/innodp]}"),
        ("axes.db", "no option 'engine/innodp'", "did you mean 'engine/innodb'", "mysql, engine/innodb"),
    ),
    "a key that no file can have as its name": (sweep('axes: {"\\0": [1, 2]}'), ("sweep.axes", "no key '\\x00'")),
    "a group without options": (sweep("axes: {'+empty': [x, y]}"), ("axes.+empty", "empty/ has no .yaml file")),
    "a key with dots": (
        sweep("axes: {training.sub.lr: [1, 2]}", HEAD.replace("epochs: 3", "sub.lr: 3")),
        ("no key 'training.sub.lr'", "one key with dots in its name"),
    ),
    "a character of another grammar": (sweep("axes: {seed: 'a>'}"), ("axes.seed", "cannot be read from '>' on")),
    "no time": (sweep("timeout: 0"), ("sweep.timeout", "above 0")),
    "bad heartbeat": (sweep("heartbeat: often"), ("sweep.heartbeat", "90s")),
    "bad grace": (sweep("grace: soon"), ("sweep.grace", "90s")),
    "a seed that is none": (sweep("axes: {}", HEAD.replace("42", "abc")), ("seed", "abc", "whole number")),
    "a key twice in a trial": (
        sweep("axes: {optimizer.lr: [1], optimizer: {SGD: {lr: [2]}}}"),
        ("optimizer.lr", "twice"),
    ),
    "interpolation in the name": (sweep("name: ${seed}"), ("sweep.name",)),
    "a swept section": (sweep("axes: {sweep.name: [a, b]}"), ("sweep.name", "cannot be swept")),
    "a file of a group": (sweep("axes: {}", HEAD.replace("model: lstm", "model: broken")), ("broken.yaml:3", "YAML")),
    "exclude of another kind": (sweep("exclude: [3]"), ("sweep.exclude", "mappings")),
    "exclude on": (sweep("exclude: [{on: 3}]"), ("sweep.exclude", "quote")),
    "exclude of a misspelt key": (
        sweep("exclude: [{optimizer.SGD: 1}, {traning.epochs: 3}]"),
        ("sweep.exclude[0]", "optimizer.SGD", "keys of optimizer: lr, momentum"),
    ),
    "exclude of a misspelt group": (sweep("exclude: [{mdel: gru}]"), ("exclude[0]", "mdel", "did you mean 'model'")),
    "exclude of an option named no": (sweep("exclude: [{model: no}]"), ("boolean", '"no"', "exclude[0].model")),
    "option in a list with axes": (sweep("axes: {model: [{lstm: {hidden: 3}}]}"), ("axes.model", "mapping of options")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_in_the_file_gives_one_clear_message(name: str, tmp_path: Path) -> None:
    text, words = CASES[name]
    write(tmp_path, {"model/broken.yaml": "a: 1\nb: [\n"})
    message = message_for(tmp_path, text)
    for word in words:
        assert word in message, message


OVERRIDES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "swept section": (("sweep.repeats=1,2",), ("sweep.repeats", "cannot be swept")),
    "misspelt section": (("sweep.retrys=2",), ("sweep.retrys", "'retries'")),
    "unknown key": (("training.epoch=2",), ("training.epoch",)),
    "unknown group": (("optimzer=adam",), ("optimzer",)),
    "unknown option": (("optimizer=adm",), ("adm", "did you mean 'adam'")),
    "unknown swept option": (("optimizer=adm,SGD",), ("adm", "did you mean 'adam'")),
    "no override": (("=",), ("=",)),
    "bad grammar": (("seed=[1",), ("seed=[1", "ends too early", "quote it twice")),
    "an open quotation mark": (("seed='a",), ("a quotation mark is not closed", "quote it twice")),
    "no value": (("seed",), ("'seed'", "it has no `=`", "KEY=VALUE")),
    "an unknown function": (("seed=between(1,2)",), ("Unknown function 'between'", "range,")),
    "added twice": (("+seed=1",), ("the config has 'seed' already", "write seed=1, or ++seed=1")),
    "a group that has an option": (("+model=gru",), ("'model' has an option already", "write model=gru")),
    "an option that is not there": (("+db=x",), ("no config 'db/x'",)),
    "unknown sweep option": (("sweep=nope",), ("sweep",)),
    "deleted": (("~nope",), ("nope",)),
}


def test_a_key_of_the_section_sweep_is_never_what_was_meant(tmp_path: Path) -> None:
    text = "sweep:\n  axes: {optimizer: {SGD: {lr: [1, 2]}}}\n  trainer: a:b\n" + HEAD
    assert "did you mean 'optimizer.lr'?" in message_for(tmp_path, text, "lr=0.5")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [(BOMB, "aliases stand for more than"), ("a: &a [*a]\n", "contains itself"), ("a: &a {b: [*a]}\n", "itself")],
)
def test_aliases_that_never_end_are_refused_at_once(tmp_path: Path, text: str, words: str) -> None:
    message = message_for(tmp_path, text + sweep("axes: {}"))
    assert words in message
    assert "sweep.yaml" in message
    write(tmp_path, {"model/huge.yaml": text})
    assert "huge.yaml" in message_for(tmp_path, sweep("axes: {model: [lstm, huge]}"))


def test_usual_aliases_are_read(tmp_path: Path) -> None:
    head = "base: &base {lr: 1, layers: &layers [1, 2]}\nother: {<<: *base, seed: *layers}\nnot: 'R&D *x*'\n"
    file = write(tmp_path, {"sweep.yaml": sweep("axes: {}", head)})
    assert planning.load(file).first_trial().config["other"] == {"lr": 1, "layers": [1, 2], "seed": [1, 2]}


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_mistake_on_the_command_line_gives_one_clear_message(name: str, tmp_path: Path) -> None:
    overrides, words = OVERRIDES[name]
    message = message_for(tmp_path, sweep("axes: {training.epochs: [1, 2]}"), *overrides)
    for word in words:
        assert word in message, message


def test_the_value_of_a_variable_is_not_repeated(tmp_path: Path) -> None:
    for body in ("env: [A_TOKEN=hunter2]", "env: {A_TOKEN: hunter2}"):
        assert "hunter2" not in message_for(tmp_path, sweep(body))


def test_a_missing_file_gives_a_message_with_the_most_similar_name(tmp_path: Path) -> None:
    write(tmp_path, {"sweep.yaml": sweep("")})
    with pytest.raises(ConfigError, match=r"no such file[\s\S]*sweep.yaml"):
        planning.load(tmp_path / "swep.yaml")
    with pytest.raises(ConfigError, match="a folder"):
        planning.load(tmp_path)


def assert_clear(error: OrchestratorError) -> None:
    """The message says something, and names the place of the mistake."""
    assert error.what.strip()
    assert error.where
    assert "Traceback" not in str(error)


def assert_trials_or_message(file: Path) -> None:
    """Planning gives trials with different ids, or a clear message."""
    try:
        ids = [trial.trial_id for trial in planning.load(file).trials()]
    except OrchestratorError as error:
        assert_clear(error)
    else:
        assert ids
        assert len(set(ids)) == len(ids)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["???", "${x}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*sweepfile.KEYS, "metric", "wandb", "gpus", "method"]) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sweepfile.KEYS), PLAIN, max_size=6) | PLAIN)
@settings(max_examples=150, deadline=None)
def test_reading_a_section_gives_a_spec_or_a_message(data: Any) -> None:
    if isinstance(data, dict):
        data = {"trainer": "a:b", **data}
    try:
        spec = sweepfile.read(data, Path("sweep.yaml"), "name")
    except OrchestratorError as error:
        assert_clear(error)
    else:
        assert spec.name
        assert ":" in spec.trainer


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            [
                "sweep:",
                " ",
                "\n",
                "axes",
                "trainer: a:b",
                "{",
                "}",
                "[",
                ": ",
                "- ",
                "${",
                "model",
                "'",
                "&a",
                "*a",
                "!!python/x",
                "<<: ",
            ]
        ),
        max_size=12,
    ).map("".join)
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_gives_trials_or_a_message(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    assert_trials_or_message(file)


@given(
    PLAIN
    | st.dictionaries(
        st.sampled_from(["model", "optimizer", "seed", "optimizer.lr", "lr, betas", "training", "/seed", "+x"]),
        PLAIN,
        max_size=3,
    )
)
@example(axes={"model": [[[]]]})
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_axes_give_trials_or_a_message(tmp_path: Path, axes: Any) -> None:
    from omegaconf import OmegaConf

    file = write(tmp_path, {"sweep.yaml": HEAD, **CONF})
    try:
        OmegaConf.save(
            {
                "defaults": [{"model": "lstm"}, {"optimizer": "SGD"}, "_self_"],
                "seed": 1,
                "sweep": {"trainer": "a:b", "axes": axes},
            },
            file,
        )
    except Exception:  # OmegaConf cannot write these axes
        return
    assert_trials_or_message(file)


@pytest.mark.parametrize("name", ["address-tagging", "v1.2_b", "x" * 200])
def test_valid_names_of_sweeps(name: str) -> None:
    assert sweepfile.read({"trainer": "a:b", "name": name}, Path("sweep.yaml"), "").name == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "-j", "a\n", "x" * 201])
def test_a_name_that_would_leave_the_runs_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.name"):
        sweepfile.read({"trainer": "a:b", "name": name}, Path("sweep.yaml"), "")


@given(st.text("ab=,()[]{}'\"\\:$~@+/>!. 1|", max_size=10))
@example("x=\\")
@example("x=a>")
@pytest.mark.parametrize("alone", [True, False])
@settings(max_examples=200, deadline=None)
def test_what_is_no_override_is_refused_in_words(alone: bool, text: str) -> None:
    found, parser = ConfigError("", fix="none is needed"), OverridesParser.create()
    try:
        with as_config_error("override"):
            parser.parse_override(text) if alone else parser.parse_overrides([text])
    except ConfigError as error:
        found = error
    assert found.fix
    assert not [word for word in INNER if word in found.what and word not in text]
