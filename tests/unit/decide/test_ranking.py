"""Which config is best: by the mean over its repeats, if all have ended well."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.decide.ranking import rank

WELL, OPEN, BAD = "SUCCEEDED", "RUNNING", "FAILED"
TRIALS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([WELL, OPEN, BAD, "PENDING", "LOST", "STOPPED"]),
              st.one_of(st.none(), st.integers(-9, 9).map(float))),
    max_size=12,
)  # fmt: skip


def candidates(*trials: tuple[str, str, float | None]) -> list[tuple[str, str, str, float | None]]:
    return [(f"{config}{number}", config, state, value) for number, (config, state, value) in enumerate(trials)]


def test_one_lucky_seed_does_not_win() -> None:
    found = rank(candidates(("a", WELL, 0.5), ("a", WELL, 0.5), ("b", WELL, 0.9), ("b", WELL, 0.0)), "max")
    assert found.best is not None
    assert (found.best.config_id, found.best.mean, found.best.sd, found.best.repeats) == ("a", 0.5, 0.0, "2 of 2")
    assert (found.single, found.trials()) == ("b2", ["a0", "a1", "b2", "b3"])


@pytest.mark.parametrize(
    ("second", "repeats", "provisional"),
    [
        ((BAD, 0.9), "1 of 2, 1 failed", False),
        ((OPEN, 0.9), "1 of 2, provisional", True),
        (("PENDING", None), "1 of 2, provisional", True),
        ((WELL, None), "1 of 2, 1 without a value", False),
    ],
)
def test_a_config_is_ranked_once_all_its_repeats_have_ended_well(
    second: tuple[str, float | None], repeats: str, provisional: bool
) -> None:
    found = rank(candidates(("a", WELL, 0.9), ("a", *second), ("b", WELL, 0.1), ("b", WELL, 0.1)), "max")
    first, last = found.configs()
    assert (first.config_id, last.config_id) == ("b", "a")
    assert (last.ranked, last.repeats, last.provisional, last.mean, last.sd) == (False, repeats, provisional, 0.9, None)
    alone = rank(candidates(("a", WELL, 0.9), ("a", *second)), "max")
    assert (alone.best is not None) == provisional


def test_values_near_the_largest_number() -> None:
    (config,) = rank(candidates(("a", WELL, 1.7e308), ("a", WELL, 1.7e308)), "min").configs()
    assert (config.mean, config.sd) == (1.7e308, 0.0)


@given(TRIALS, st.sampled_from(["min", "max"]))
def test_the_order_is_what_the_words_say(trials: list[tuple[str, str, float | None]], mode: str) -> None:
    given_ = candidates(*trials)
    found = rank(given_, mode)  # type: ignore[arg-type]
    assert sorted(found.trials()) == sorted(trial_id for trial_id, *_ in given_)
    whole = {}
    for config in {each[1] for each in given_}:
        members = [each for each in given_ if each[1] == config]
        if all(state in (WELL, "STOPPED") and value is not None for _, _, state, value in members):
            whole[config] = statistics.fmean(value for *_, value in members if value is not None)
    ranked = [config for config in found.configs() if config.ranked]
    assert {config.config_id for config in ranked} == set(whole)
    means = [config.mean for config in ranked]
    assert means == pytest.approx(sorted(whole.values(), reverse=mode == "max"))
    assert [config.ranked for config in found.configs()] == sorted((c.ranked for c in found.configs()), reverse=True)
    if ranked:
        assert found.best == ranked[0]
    for config in ranked:
        values = [value for _, name, _, value in given_ if name == config.config_id and value is not None]
        assert config.sd == (pytest.approx(statistics.stdev(values)) if len(values) > 1 else None)
