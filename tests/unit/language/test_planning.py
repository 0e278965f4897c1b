"""The trials of a sweep file: which there are, what each contains, and how much memory a plan needs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from orchestrator.errors import ConfigError
from orchestrator.language import planning
from orchestrator.language.identity import trial_id
from orchestrator.language.planning import SweepPlan
from orchestrator.model.sweep import CodeRules, Objective, Resources, Retries, Search, SweepSpec
from tests.unit.language.conf_trees import write

CONF = {
    "model/lstm.yaml": "name: lstm\nhidden: 64\ngpus: 1\n",
    "model/gru.yaml": "name: gru\nhidden: 32\ngpus: 0.5\n",
    "optimizer/SGD.yaml": "lr: 0.1\nmomentum: 0.9\n",
    "optimizer/adam.yaml": "lr: 0.001\nbetas: [0.9, 0.999]\n",
}
HEAD = (
    "defaults: [{model: lstm}, {optimizer: SGD}, _self_]\nseed: 42\nx: 1\ny: 2\nnum_workers: 3\nio: {num_workers: 4}\n"
)


def plan(tmp_path: Path, body: str, *overrides: str, head: str = HEAD) -> SweepPlan:
    text = f"{head}sweep:\n  trainer: trainers.toy:train\n" + "".join(f"  {row}\n" for row in body.splitlines())
    return planning.load(write(tmp_path, {"sweep.yaml": text, **CONF}), overrides)


def test_a_trial_has_its_config_and_the_overrides_that_vary(tmp_path: Path) -> None:
    found = plan(tmp_path, "axes: {model: [lstm, gru], x: [5], y: 7}", "num_workers=9")
    trials = list(found.trials())
    assert [t.overrides for t in trials] == [{"model": "lstm", "x": 5}, {"model": "gru", "x": 5}]
    assert trials[1].config == {
        "model": {"name": "gru", "hidden": 32, "gpus": 0.5},
        "optimizer": {"lr": 0.1, "momentum": 0.9},
        "seed": 42,
        "x": 5,
        "y": 7,
        "num_workers": 9,
        "io": {"num_workers": 4},
    }
    assert trials[0].trial_id == trial_id("trainers.toy:train", trials[0].config)
    assert trials[0].config_id == trial_id("trainers.toy:train", trials[0].config, omit=["seed"])
    assert trials[0].seed == 42
    assert found.overrides == ("num_workers=9",)
    assert list(found.trials()) == trials


def test_templates_and_composing_give_the_same_ids(tmp_path: Path) -> None:
    axes = "repeats: 2\nignore: [io.*]\nexclude: [{x: 1, model: gru}]\naxes: {model: [lstm, gru], x: [1, 2.5, -0.0]}"
    fast = list(plan(tmp_path, axes).trials())
    slow = list(plan(tmp_path, axes, head=HEAD + "slow: '${oc.decode:\"1\"}'\n").trials())
    assert [t.overrides for t in fast] == [t.overrides for t in slow]
    for one, other in zip(fast, slow, strict=True):
        plain = {key: value for key, value in other.config.items() if key != "slow"}
        assert plain == one.config
        assert one.trial_id == trial_id("trainers.toy:train", plain, ignore=["io.*"])
        assert other.trial_id == trial_id("trainers.toy:train", other.config, ignore=["io.*"])
        assert one.config_id == trial_id("trainers.toy:train", plain, ignore=["io.*"], omit=["seed"])


def test_repeats_vary_slowest_and_share_a_config_id(tmp_path: Path) -> None:
    trials = list(plan(tmp_path, "repeats: 3\naxes: {x: [1, 2]}").trials())
    assert [(t.seed, t.config["x"]) for t in trials] == [(42, 1), (42, 2), (43, 1), (43, 2), (44, 1), (44, 2)]
    assert all(t.overrides["seed"] == t.seed == t.config["seed"] for t in trials)
    assert len({t.config_id for t in trials}) == 2
    fewer = [t.trial_id for t in plan(tmp_path, "repeats: 1\naxes: {x: [1, 2]}").trials()]
    assert fewer == [t.trial_id for t in trials[:2]]


def test_repeats_with_a_seed_that_depends_on_an_axis(tmp_path: Path) -> None:
    head = HEAD.replace("seed: 42", "seed: ${x}")
    trials = plan(tmp_path, "repeats: 2\naxes: {x: [10, 20]}", head=head).trials()
    assert [t.seed for t in trials] == [10, 20, 11, 21]


def test_without_a_seed_trials_are_seeded_from_their_ids(tmp_path: Path) -> None:
    found = plan(tmp_path, "axes: {x: [1, 2]}", head=HEAD.replace("seed: 42\n", ""))
    trials = list(found.trials())
    assert [t.seed for t in trials] == [int(t.trial_id, 16) % 2**31 for t in trials]
    assert any("seeded from their ids" in warning for warning in found.summary().warnings)


def test_the_seed_can_have_another_key(tmp_path: Path) -> None:
    found = plan(tmp_path, "seed: training.seed\nrepeats: 2", head=HEAD + "training: {seed: 5}\n")
    assert [t.config["training"]["seed"] for t in found.trials()] == [5, 6]


def test_ignored_keys_and_the_sweep_section_do_not_change_an_id(tmp_path: Path) -> None:
    body = "ignore: ['*num_workers']\naxes: {x: [1]}"
    (one,) = plan(tmp_path, body).trials()
    (other,) = plan(tmp_path, body + "\ngrace: 3\nretries: 1", "num_workers=8", "io.num_workers=9").trials()
    assert one.trial_id == other.trial_id
    assert other.config["num_workers"] == 8


DERIVED = (
    HEAD
    + """
paths: {root: /home/a, data: "${.root}/data"}
train: {file: "${paths.data}/train.csv", copies: ["${paths.data}/${x}.csv"]}
all: ${paths}
inner: ${train.file}
mixed: "${paths.root}/${oc.env:PLAN_PLAIN,a}"
"""
)


@pytest.mark.parametrize("slow", ["", "slow: '${oc.decode:\"1\"}'\n"], ids=["template", "composed"])
def test_what_comes_from_an_ignored_key_does_not_change_an_id_by_its_value(tmp_path: Path, slow: str) -> None:
    def ids(head: str, *overrides: str, ignore: str = "paths.*") -> list[tuple[str, str]]:
        found = plan(tmp_path, f"ignore: [{ignore}]\naxes: {{x: [1, 2]}}", *overrides, head=head + slow).trials()
        return [(trial.trial_id, trial.config_id) for trial in found]

    plain = DERIVED.replace("mixed", "# mixed")
    before = ids(plain)
    assert len(set(before)) == 2
    assert ids(plain, "paths.root=/scratch/b") == before
    assert ids(plain, "paths.root=/scratch/b", ignore="paths") == ids(plain, ignore="paths")
    assert ids(plain, "paths.root=/scratch/b", ignore="y") != ids(plain, ignore="y")
    assert ids(plain.replace("train.csv", "small.csv")) != before, "how it is written counts"
    assert ids(plain, "train.file=/home/a/data/train.csv") != before
    assert ids(DERIVED, "paths.root=/b") != ids(DERIVED), "what a resolver gives would be lost"
    (one, _) = plan(tmp_path, "ignore: [paths.*]\naxes: {x: [1, 2]}", "paths.root=/b", head=plain).trials()
    assert one.config["train"] == {"file": "/b/data/train.csv", "copies": ["/b/data/1.csv"]}


def test_a_trial_is_excluded_if_all_keys_of_an_entry_match(tmp_path: Path) -> None:
    exclude = "exclude: [{model: gru, x: [1, 2]}, {optimizer.betas: 3}, {x: 3, model.hidden: 64}]\n"
    found = plan(tmp_path, exclude + "axes: {model: [lstm, gru], x: [1, 2, 3]}")
    assert [(t.overrides["model"], t.overrides["x"]) for t in found.trials()] == [("lstm", 1), ("lstm", 2), ("gru", 3)]
    summary = found.summary()
    assert (summary.total, summary.excluded, summary.duplicates) == (3, 3, 0)
    assert summary.by_choice == {"model": {"lstm": 2, "gru": 1}}
    assert [w for w in summary.warnings if "matches no trial" in w] == [
        "sweep.exclude[1] matches no trial: optimizer.betas=3",
    ]


def test_excluding_every_trial_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every trial is excluded"):
        plan(tmp_path, "exclude: [{x: [1, 2]}]\naxes: {x: [1, 2]}").summary()


def test_a_trial_in_two_blocks_runs_once(tmp_path: Path) -> None:
    found = plan(tmp_path, "axes: [{x: [1, 2]}, {x: [2, 3]}, {x: 1, y: 2}]")
    assert [t.overrides["x"] for t in found.trials()] == [1, 2, 3]
    assert found.summary().duplicates == 2


def test_resources_may_differ_between_trials(tmp_path: Path) -> None:
    body = "resources: {gpus: '${model.gpus}', cpus: 2, memory: 4GB, custom: {tpu: 1}, labels: {zone: '${x}-a'}}\n"
    trials = list(plan(tmp_path, body + "axes: {model: [lstm, gru], x: [a, b]}").trials())
    assert trials[0].resources == Resources(1.0, 2.0, 4 * 10**9, {"tpu": 1.0}, {"zone": "a-a"})
    assert trials[3].resources == Resources(0.5, 2.0, 4 * 10**9, {"tpu": 1.0}, {"zone": "b-a"})
    assert all("sweep" not in t.config for t in trials)
    (held,) = plan(tmp_path, "axes: {}", "sweep.resources.gpus=0").trials()
    assert held.resources == Resources(gpus=0.0)


SECRETS = """
token: ${oc.env:PLAN_HF_TOKEN}
auth: {api_key: "${oc.env:PLAN_KEY}", header: "Bearer ${auth.api_key}", tokenizer: bert, max_new_tokens: 3}
none: {password: null}
copy: ${auth}
pad_token_id: 0
image_key: img
log: ${now:%Y}
dir: ${hydra:runtime.output_dir}/x
under: ${dir}/y
mine: {hidden: "${oc.env:PLAN_MINE}"}
plain: ${oc.env:PLAN_PLAIN}
literal: 'a $ {b}'
"""


def test_secrets_and_values_of_the_start_are_kept_as_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAN_PLAIN", "seen")
    for name in ("PLAN_HF_TOKEN", "PLAN_KEY", "PLAN_MINE"):
        monkeypatch.setenv(name, "hunter2")
    one, two = plan(tmp_path, "secrets: ['mine.*']\naxes: {x: [1, 2]}", head=HEAD + SECRETS).trials()
    assert set(one.references) == {
        *("token", "auth.api_key", "auth.header", "copy", "log", "dir", "under", "mine.hidden"),
    }
    assert "hunter2" not in repr(one)
    assert one.config["auth"]["tokenizer"] == "bert"
    assert one.config["plain"] == "seen"
    for key, text in one.references.items():
        assert str(_at(one.config, key)) == text
    monkeypatch.setenv("PLAN_KEY", "other")
    again = list(plan(tmp_path, "secrets: ['mine.*']\naxes: {x: [1, 2]}", head=HEAD + SECRETS).trials())
    assert again == [one, two]


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def test_a_secret_cannot_be_swept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="secret"):
        list(plan(tmp_path, "axes: {api_key: [a, b]}", head=HEAD + "api_key: ${oc.env:NOPE}\n").trials())


def test_a_value_that_changes_between_compositions_gives_a_warning(tmp_path: Path) -> None:
    counter = iter(range(1000))
    OmegaConf.register_new_resolver("tests.next", lambda: next(counter), replace=True)
    try:
        found = plan(tmp_path, "axes: {x: [1, 2]}", head=HEAD + "z: ${tests.next:}\n")
        assert any(w.startswith("z differs between two compositions") for w in found.summary().warnings)
    finally:
        OmegaConf.clear_resolver("tests.next")


def test_random_search_gives_the_requested_number_of_trials(tmp_path: Path) -> None:
    body = "search: {method: random, trials: %d, seed: 3}\nexclude: [{model: gru, x: 1}]\naxes: %s"
    axes = "{model: [lstm, gru], x: [1, 2, 3], y: 'tag(log, interval(1e-3, 1))'}"
    ten = [t.trial_id for t in plan(tmp_path, body % (10, axes)).trials()]
    twelve = [t.trial_id for t in plan(tmp_path, body % (12, axes)).trials()]
    assert len(set(ten)) == 10
    assert twelve[:10] == ten
    finite = plan(tmp_path, body % (10, "{model: [lstm, gru], x: [1, 2, 3]}"))
    assert len(list(finite.trials())) == 5
    few = plan(tmp_path, body % (10, "{x: 'int(interval(0, 4))'}"))
    assert sorted(t.config["x"] for t in few.trials()) == [0, 1, 2, 3]


def test_a_grid_can_be_limited(tmp_path: Path) -> None:
    found = plan(tmp_path, "repeats: 2\nsearch: {trials: 2}\naxes: {x: range(100)}")
    assert [(t.seed, t.config["x"]) for t in found.trials()] == [(42, 0), (42, 1), (43, 0), (43, 1)]


def test_axes_in_hydras_sweep_grammar(tmp_path: Path) -> None:
    body = "axes: {model: glob(*), x: 'shuffle(range(1, 4))', y: 'choice(a,b)', num_workers: 'range(0, 0.3, 0.1)'}"
    found = plan(tmp_path, body)
    trials = list(found.trials())
    assert len(trials) == 2 * 3 * 2 * 3
    assert trials == list(plan(tmp_path, body).trials())
    assert {t.config["num_workers"] for t in trials} == {0.0, 0.1, 0.2}


def test_a_call_in_a_list_is_taken_literally_with_a_warning(tmp_path: Path) -> None:
    found = plan(tmp_path, "axes: {x: ['range(0, 3)', 2]}")
    assert [t.config["x"] for t in found.trials()] == ["range(0, 3)", 2]
    assert any("taken literally" in warning for warning in found.summary().warnings)


def test_hydras_warning_about_a_missing_self_is_kept(tmp_path: Path) -> None:
    found = plan(tmp_path, "axes: {}", head=HEAD.replace(", _self_", ""))
    assert any("_self_" in warning for warning in found.summary().warnings)


def test_overrides_on_the_command_line(tmp_path: Path) -> None:
    body = "axes:\n  optimizer: {SGD: {lr: [1, 2]}, adam: {}}\n  model: [lstm, gru]"
    assert len(list(plan(tmp_path, body, "optimizer=adam").trials())) == 2
    assert len(list(plan(tmp_path, body, "optimizer=SGD", "model=gru").trials())) == 2
    assert len(list(plan(tmp_path, body, "x=1,2,3").trials())) == 18
    fixed = list(plan(tmp_path, body, "optimizer.lr=7", "model=gru").trials())
    assert [(t.overrides, t.config["optimizer"]["lr"]) for t in fixed] == [
        ({"optimizer": "SGD"}, 7),
        ({"optimizer": "adam"}, 7),
    ]
    missing = list(plan(tmp_path, body.replace("lr:", "momentum:"), "optimizer.momentum=7", "model=gru").trials())
    assert [t.config["optimizer"].get("momentum") for t in missing] == [7, None]


def test_overrides_change_the_sweep_section(tmp_path: Path) -> None:
    body = "retries: 2\ntracking: {wandb: {project: p}}\nobjective: {metric: a/b, mode: max, at: best}"
    body += "\ngrace: 2m\ntimeout: 2h"
    spec = plan(
        tmp_path, body, "sweep.name=other", "sweep.start=spawn", "sweep.repeats=2", "sweep.deterministic=off"
    ).spec
    assert (spec.name, spec.start, spec.repeats, spec.deterministic) == ("other", "spawn", 2, "off")
    assert spec.retries == Retries(error=2, lost=3, oom=2)
    assert spec.tracking == {"wandb": {"project": "p"}}
    assert spec.objective == Objective("a/b", "max", "best")
    assert (spec.grace, spec.timeout, spec.heartbeat) == (120, 7200, None)
    assert plan(tmp_path, body, "sweep.tracking.jsonl=a b.jsonl").spec.tracking == {
        "wandb": {"project": "p"},
        "jsonl": "a b.jsonl",
    }
    kept = plan(tmp_path, "code: {include: data/vocab.txt}", "sweep.code.exclude=[data/*]").spec
    assert kept.code == CodeRules(("data/vocab.txt",), ("data/*",))
    assert SweepSpec.from_json(kept.to_json()) == kept
    only = plan(tmp_path, "", "sweep.tracking.wandb=false", "sweep.tracking.jsonl=x.jsonl").spec
    assert only.tracking == {"wandb": False, "jsonl": "x.jsonl"}
    named = "tracking: {jsonl: x.jsonl}"
    assert plan(tmp_path, named).spec.tracking == {"wandb": {}, "jsonl": "x.jsonl"}
    assert plan(tmp_path, named, "sweep.tracking.jsonl=false").spec.tracking == {"wandb": {}}
    assert plan(tmp_path, named, "sweep.tracking=false").spec.tracking == {"wandb": False}
    assert plan(tmp_path, "").spec.tracking == {}
    plain = plan(tmp_path, "tracking: {wandb: false}\nretries: {lost: 9}\nobjective: loss")
    assert plain.spec.name == "sweep"
    assert plain.spec.tracking == {"wandb": False}
    assert plain.spec.retries == Retries(error=0, lost=9, oom=1)
    assert plain.spec.objective == Objective("loss")
    assert plain.spec.search == Search()


def test_the_first_trial_has_every_axis_at_its_first_value(tmp_path: Path) -> None:
    file = plan(tmp_path, "axes: {model: [gru, lstm], x: [5, 6], y: [7, 8]}").file
    spec, trial = planning.load_first_trial(file, ["x=3"])
    assert spec.name == "sweep"
    assert trial.overrides == {"model": "gru", "y": 7}
    assert trial.config["x"] == 3


def test_memory_grows_by_less_than_100_bytes_a_trial(tmp_path: Path) -> None:
    found = plan(tmp_path, "axes: {model: [lstm, gru], x: 'range(300)', y: 'range(100)'}")
    held = {}
    tracemalloc.start()
    try:
        for count, _ in enumerate(found.trials(), start=1):
            if count in (20_000, 60_000):
                held[count] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert found.summary().total == 60_000
    assert (held[60_000] - held[20_000]) / 40_000 < 100


def test_the_choice_of_every_group_is_kept_whether_it_varies_or_not(tmp_path: Path) -> None:
    found = plan(tmp_path, "axes: {optimizer: [adam, SGD]}")
    assert [(trial.overrides, trial.choices) for trial in found.trials()] == [
        ({"optimizer": "adam"}, {"model": "lstm", "optimizer": "adam"}),
        ({"optimizer": "SGD"}, {"model": "lstm", "optimizer": "SGD"}),
    ]


NUMBERED = {
    "fold/0.yaml": "n: 0\n",
    "fold/1.yaml": "n: 1\n",
    "fold/01.yaml": "n: -1\n",
    "fold/true.yaml": "n: 2\n",
    "opt/sgd.yaml": "lr: 0.1\nmomentum: 0.9\n",
    "opt/adam.yaml": "lr: 0.2\n",
    "opt/cos.yaml": "defaults: [{sched: a}]\nlr: 3\n",
    "opt/sched/a.yaml": "k: 1\n",
    "opt/sched/b.yaml": "k: 2\n",
}


def configs(folder: Path, head: str, body: str, *overrides: str) -> list[Mapping[str, Any]]:
    file = write(folder, {"sweep.yaml": f"{head}sweep: {{trainer: 'a:b', {body}}}\n", **NUMBERED})
    return [trial.config for trial in planning.load(file, overrides).trials()]


FOLD = "defaults: [{fold: '0'}, _self_]\n"


@pytest.mark.parametrize(
    ("head", "body", "overrides", "folds"),
    [
        (FOLD, "axes: {fold: [0, 1]}", (), [0, 1]),
        (FOLD, "axes: {fold: ['01', 1]}", (), [-1, 1]),
        (FOLD, "axes: {fold: [0, 1]}, exclude: [{fold: 0}]", (), [1]),
        (FOLD, "axes: {fold: [0, 1, '01']}, exclude: [{fold: [0, '1']}]", (), [-1]),
        ("", "axes: {+fold: [0, 1]}, exclude: [{+fold: 0}]", (), [1]),
        ("", "axes: {}", ("+fold=1",), [1]),
        ("", "axes: {}", ("+fold=01",), [-1]),
        ("", "axes: {}", ("+fold=0,1",), [0, 1]),
        (FOLD, "axes: {}", ("fold=1",), [1]),
        (FOLD, "axes: {}", ("fold=true",), [2]),
        (FOLD, "axes: {}", ("fold=[1]",), [1]),
    ],
)
def test_options_that_are_named_by_a_number(
    head: str, body: str, overrides: tuple[str, ...], folds: list[int], tmp_path: Path
) -> None:
    assert [config["fold"]["n"] for config in configs(tmp_path, head, body, *overrides)] == folds


SGD = {"lr": 0.1, "momentum": 0.5}
OPT = "defaults: [{opt: adam}, _self_]\n"


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("axes", "override", "expected"),
    [
        (
            "{opt: {sgd: {momentum: [0.1, 0.2]}, adam: {}}}",
            "opt.momentum=0.5",
            [SGD, {"lr": 0.2}],
        ),
        ("{opt: [sgd]}", "opt.momentum=0.5", [SGD]),
        ("{opt: [cos]}", "opt/sched=b", [{"sched": {"k": 2}, "lr": 3}]),
        ("{opt: {cos: {sched: [a]}, adam: {}}}", "opt/sched=b", [{"sched": {"k": 2}, "lr": 3}, {"lr": 0.2}]),
        ("{opt: [sgd, adam]}", "++opt.momentum=0.5", [SGD, {"lr": 0.2, "momentum": 0.5}]),
    ],
)
def test_one_value_replaces_an_axis_as_several_do(
    axes: str, override: str, expected: list[Any], several: bool, tmp_path: Path
) -> None:
    key, _, value = override.partition("=")
    found = configs(tmp_path, OPT, f"axes: {axes}", f"{key}={value},{value}" if several else override)
    assert [config["opt"] for config in found] == expected


def test_advice_for_a_key_that_some_options_have_holds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"write \+\+opt\.momentum=0\.5"):
        configs(tmp_path, OPT, "axes: {opt: [sgd, adam]}", "opt.momentum=0.5")


def test_exclude_may_name_what_only_other_options_have(tmp_path: Path) -> None:
    assert len(configs(tmp_path, OPT, "axes: {opt: [adam]}, exclude: [{opt.momentum: 0.9}]")) == 1


def test_exclude_may_name_what_only_the_last_value_has(tmp_path: Path) -> None:
    body = "axes: {opt: [adam], ++opt.more: [{a: 1}, {b: 2}]}, exclude: [{opt.more.b: 3}]"
    assert len(configs(tmp_path, OPT, body)) == 2


MISSING = "obs: {shape: '???', n: 1}\nnet: {shape: '${obs.shape}', all: '${net}x'}\nseed: 1\n"


@pytest.mark.parametrize("allowed", ["true", "[obs.shape]", "obs.*"])
def test_values_that_the_trainer_fills_in(allowed: str, tmp_path: Path) -> None:
    head = MISSING.replace(", all: '${net}x'", "")
    file = write(
        tmp_path, {"sweep.yaml": f"{head}sweep: {{trainer: 'a:b', allow_missing: {allowed}, axes: {{seed: [1, 2]}}}}\n"}
    )
    one, two = planning.load(file).trials()
    assert one.config == {"obs": {"shape": "???", "n": 1}, "net": {"shape": "${obs.shape}"}, "seed": 1}
    assert one.references == {"net.shape": "${obs.shape}"}
    assert one.trial_id != two.trial_id
    assert one.trial_id == trial_id("a:b", one.config)


def test_a_reference_to_a_missing_value_names_it_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        configs(tmp_path, "a: {first: '${obs.shape}x'}\nobs: {shape: '???'}\n", "axes: {}")
    assert str(raised.value).endswith(
        ": a.first: it refers to 'obs.shape', which is mandatory (???) but has no value\n"
        "  → set obs.shape=…, or list it in sweep.allow_missing if the trainer fills it"
    )


def test_a_key_that_is_a_number_is_named_by_an_override_once_it_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no key 'by.2'[\s\S]*the key 2 is a number in the file: quote it there"):
        configs(tmp_path, "by: {2: two}\n", "axes: {}", "by.2=zwei")
    assert configs(tmp_path, "by: {'2': two}\n", "axes: {}", "by.2=zwei") == [{"by": {"2": "zwei"}}]


def test_the_option_null_leaves_a_group_out_on_the_command_line_too(tmp_path: Path) -> None:
    head = "defaults: [{opt: sgd}, {fold@other: '1'}, _self_]\n"
    assert configs(tmp_path, head, "axes: {}", "opt=null") == [{"other": {"n": 1}}]
    assert configs(tmp_path, head, "axes: {opt: [sgd, adam]}", "opt=null") == [{"other": {"n": 1}}]
    assert configs(tmp_path, head, "axes: {}", "fold@other=null", "opt=adam") == [{"opt": {"lr": 0.2}}]
    assert len(configs(tmp_path, head, "axes: {}", "opt=null,adam")) == 2
    assert configs(tmp_path, head + "text: a\n", "axes: {}", "opt=null", "text=null") == [
        {"text": None, "other": {"n": 1}}
    ]


def test_a_missing_value_names_the_way_out(tmp_path: Path) -> None:
    for body in ("axes: {}", "axes: {}, allow_missing: [obs.other]"):
        with pytest.raises(ConfigError, match=r"obs\.shape[\s\S]*sweep\.allow_missing"):
            configs(tmp_path, "obs: {shape: '???'}\n", body)
