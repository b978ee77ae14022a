"""Schedules: their shapes, how they compose, and what they refuse."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convolve.errors import ConvolveError
from convolve.training.schedule import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Polynomial,
    Schedule,
    Sequence,
    Step,
    WarmUp,
)

PLAIN = [
    Constant(),
    Cosine(0.1),
    OneCycle(),
    Polynomial(),
    Polynomial(power=0.9, start=0.5, final=2.0),
    Exponential(),
    Step(every=0.1),
    Step(every=7, by=2.0),
    Step(at=(0.2, 0.5)),
    Step(at=(3, 30)),
]
lengths = st.integers(1, 60) | st.floats(0.01, 0.99)
schedules = st.recursive(
    st.sampled_from(PLAIN),
    lambda inner: st.builds(
        lambda pairs, last: Sequence(*pairs, last), st.lists(st.tuples(lengths, inner), max_size=3), inner
    ),
    max_leaves=6,
)


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


@given(schedules, st.integers(1, 120))
def test_any_composition_gives_a_finite_factor_at_every_step(schedule: Schedule, steps: int) -> None:
    assert all(math.isfinite(f) and f >= 0 for f in factors(schedule, steps))
    again = copy.deepcopy(schedule)
    assert (again, hash(again)) == (schedule, hash(schedule))


@given(st.lists(st.tuples(lengths, st.sampled_from(PLAIN)), max_size=3), st.sampled_from(PLAIN), st.integers(1, 120))
def test_each_of_a_sequence_runs_over_its_own_steps(
    pairs: list[tuple[float, Schedule]], last: Schedule, steps: int
) -> None:
    expected: list[float] = []
    for length, schedule in pairs:
        expected += factors(schedule, length if isinstance(length, int) else round(length * steps))
    expected += factors(last, max(0, steps - len(expected)))
    assert factors(Sequence(*pairs, last), steps) == expected[:steps]


@pytest.mark.parametrize(
    "schedule", [Cosine(0.25), Polynomial(final=0.25), Polynomial(3.0, final=0.25), Exponential(0.25)]
)
@pytest.mark.parametrize("steps", [2, 3, 100])
def test_what_falls_begins_at_the_rate_and_ends_at_its_final_part(schedule: Schedule, steps: int) -> None:
    found = factors(schedule, steps)
    assert (found[0], found[-1]) == (pytest.approx(1.0), pytest.approx(0.25))
    assert found == sorted(found, reverse=True)
    assert schedule.factor(0, 1) == pytest.approx(1.0)


def test_exponential_falls_by_one_factor() -> None:
    found = factors(Exponential(0.001), 50)
    for before, after in itertools.pairwise(found):
        assert after / before == pytest.approx(0.001 ** (1 / 49))


def test_polynomial_is_the_segmentation_papers_poly() -> None:
    """(1 - step / steps) ** 0.9, as Chen et al. (DeepLab, 2017) write it, with the last step at 0."""
    for step, found in enumerate(factors(Polynomial(power=0.9), 11)):
        assert found == pytest.approx((1 - step / 10) ** 0.9)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Step(every=4), [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (Step(every=0.5), [1] * 5 + [0.1] * 5),
        (Step(every=0.01, by=1.0), [1] * 10),
        (Step(at=[2, 9], by=0.5), [1, 1] + [0.5] * 7 + [0.25]),  # type: ignore[arg-type]
        (Step(at=(0.3,), by=3.0), [1, 1, 1] + [3] * 7),
        (Step(at=(100,)), [1] * 10),
    ],
    ids=str,
)
def test_steps(schedule: Schedule, expected: list[float]) -> None:
    assert factors(schedule, 10) == pytest.approx(expected)


def test_warming_up() -> None:
    assert factors(WarmUp(3, start=0.0), 5) == [0, 0.5, 1, 1, 1]
    assert factors(WarmUp(0.5, Cosine(), start=0.2), 8)[:4] == pytest.approx([0.2, 0.2 + 0.8 / 3, 0.2 + 1.6 / 3, 1])
    assert factors(WarmUp(0.5, Cosine()), 8)[4:] == factors(Cosine(), 4)
    assert factors(WarmUp(0.01, Cosine()), 8) == factors(Cosine(), 8), "no step to warm up in"
    assert factors(WarmUp(20), 5) == factors(WarmUp(20), 20)[:5], "training may end before"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Step(), "either at, the milestones, or every"),
        (lambda: Step(at=(1,), every=1), "either at, the milestones, or every"),
        (lambda: Step(every=0), "Step: a length is a whole number of steps or a part.*Received: 0"),
        (lambda: Step(every=1.0), "a length is .*between 0.0 and 1.0. Received: 1.0"),
        (lambda: Step(every=True), "Received: True"),
        (lambda: Step(at=(-1,)), "Received: -1"),
        (lambda: Step(at=(math.nan,)), "Received: nan"),
        (lambda: Step(at=("x",)), "Received: 'x'"),  # type: ignore[arg-type]
        (lambda: Step(at=(5, 3)), "the earliest first"),
        (lambda: Step(at=(5, 0.7)), "milestones are whole steps or parts"),
        (lambda: Step(every=3, by=0), "Step: by must be positive. Received: by=0"),
        (lambda: Polynomial(power=0), "Polynomial: power must be positive"),
        (lambda: Polynomial(start=-1), "Polynomial: start must not be negative. Received: start=-1"),
        (lambda: Polynomial(final=math.inf), "Polynomial: final must not be negative"),
        (lambda: Exponential(0), "Exponential: final must be positive. Received: final=0"),
        (lambda: Cosine(-0.1), "Cosine: final must not be negative"),
        (lambda: OneCycle(warm=1.0), "OneCycle: warm must be between 0 and 1"),
        (lambda: OneCycle(start=math.nan), "OneCycle: start must not be negative"),
        (lambda: WarmUp(0.0), "Sequence: a length is"),
        (lambda: WarmUp(10, start=-1), "start must not be negative"),
        (lambda: WarmUp(10, 0.5), "the last takes what is left: a schedule without a length. Received: 0.5"),  # type: ignore[arg-type]
        (lambda: Sequence(), "the last takes what is left"),
        (lambda: Sequence((0.5, Cosine())), "the last takes what is left"),
        (lambda: Sequence(Cosine(), Cosine()), r"all but the last are pairs \(length, schedule\). Received: Cosine"),
        (lambda: Sequence((1.5, Cosine()), Cosine()), "Sequence: a length is"),
        (lambda: Sequence((3, 0.1), Cosine()), r"Received: \(3, 0.1\)"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConvolveError, match=words):
        make()
