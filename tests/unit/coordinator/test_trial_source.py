"""In which order the trials of a plan come."""

from __future__ import annotations

from orchestrator.coordinator.trial_source import PAGE, PlanSource
from orchestrator.manifest.writer import Manifest
from orchestrator.ports import TrialSource
from tests.unit import manifests
from tests.unit.manifests import trial_id, trial_spec


def source(manifest: Manifest, trials: int, **options: object) -> TrialSource:
    return PlanSource(manifest, manifests.plan(manifest, map(trial_spec, range(trials))), **options)  # type: ignore[arg-type]


def taken(manifest: Manifest, given: TrialSource) -> list[int]:
    """Take trials and begin them, until none is left."""
    numbers = []
    while (due := given.next()) is not None:
        numbers.append(due.spec.config["x"])
        manifests.begin(manifest, numbers[-1])
    assert given.exhausted
    return numbers


def test_a_plan_comes_in_its_order_page_by_page(manifest: Manifest) -> None:
    count = 2 * PAGE + 10
    given = source(manifest, count)
    assert not given.exhausted
    assert taken(manifest, given) == list(range(count))


def test_a_limit_counts_the_trials_that_wait(manifest: Manifest) -> None:
    manifests.plan(manifest, map(trial_spec, range(5)))
    manifests.run(manifest, 0)
    assert taken(manifest, source(manifest, 5, limit=3)) == [1, 2, 3]
    assert taken(manifest, source(manifest, 2 * PAGE, limit=PAGE + 1)) == list(range(4, PAGE + 5))


def test_what_is_given_back_is_next_unless_something_is_due_again(manifest: Manifest) -> None:
    given = source(manifest, 3)
    first = given.next()
    assert first is not None
    given.give_back(first)
    assert given.next() == first
    given.give_back(first)
    given.again([trial_id(2)])
    assert taken(manifest, given) == [2, 0, 1]


def test_a_whole_page_that_has_run_meanwhile_is_passed_over(manifest: Manifest) -> None:
    given = source(manifest, PAGE + 2)
    assert given.next() is not None
    for number in range(PAGE):
        manifests.run(manifest, number)
    assert taken(manifest, given) == [PAGE, PAGE + 1]


def test_an_exhausted_source_gives_what_is_due_again(manifest: Manifest) -> None:
    given = source(manifest, 1)
    assert taken(manifest, given) == [0]
    with manifest.transaction():
        manifest.attempts.recover(1.0)
    given.again([trial_id(0)])
    assert not given.exhausted
    due = given.next()
    assert due is not None
    assert (due.spec.trial_id, due.cause) == (trial_id(0), "lost_coordinator")
