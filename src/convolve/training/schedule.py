"""Schedules: the learning rate as a function of how far training has come.

A schedule knows the step and the number of steps, nothing else, so that schedules put together are schedules:

>>> schedule = WarmUp(0.2, Sequence((0.5, Constant()), Cosine()))
>>> [round(schedule.factor(step, 10), 2) for step in range(10)]
[0.01, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.25, 0.0]

A length is a whole number of steps, or a part of all steps as a float.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass

from convolve.errors import ConvolveError

Length = int | float


class Schedule:
    """Base of schedules: `factor(step, steps)` multiplies the optimizer's rate at `step` of `steps`, from 0."""

    def factor(self, step: int, steps: int) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The optimizer's rate throughout."""

    def factor(self, step: int, steps: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From `start` times the rate to `final` times it: a straight line, or the curve of (1 - part) ** `power`.

    >>> [Polynomial().factor(step, 5) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    >>> [Polynomial(power=2, start=1, final=0.2).factor(step, 3) for step in range(3)]
    [1.0, 0.4, 0.2]
    """

    power: float = 1.0
    start: float = 1.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_factors(self, "start", "final")
        _check_positive(self, "power")

    def factor(self, step: int, steps: int) -> float:
        return self.final + (self.start - self.final) * math.pow(1 - _part(step, steps), self.power)


@dataclass(frozen=True)
class Exponential(Schedule):
    """From the rate to `final` times it, falling by the same factor in each step.

    >>> [round(Exponential(0.01).factor(step, 5), 3) for step in range(5)]
    [1.0, 0.316, 0.1, 0.032, 0.01]
    """

    final: float = 0.01

    def __post_init__(self) -> None:
        _check_positive(self, "final")

    def factor(self, step: int, steps: int) -> float:
        return math.pow(self.final, _part(step, steps))


@dataclass(frozen=True)
class Step(Schedule):
    """The rate times `by` at each milestone in `at`, or after each `every`: give one of the two.

    >>> [round(Step(at=(0.5, 0.75)).factor(step, 8), 2) for step in range(8)]
    [1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    >>> [Step(every=3, by=0.5).factor(step, 8) for step in range(8)]
    [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    """

    at: tuple[Length, ...] = ()
    every: Length | None = None
    by: float = 0.1

    def __post_init__(self) -> None:
        _check_positive(self, "by")
        given = self.at if isinstance(self.at, Iterable) else (self.at,)
        object.__setattr__(self, "at", tuple(given))
        if bool(self.at) == (self.every is not None):
            raise ConvolveError(f"Step: give either at, the milestones, or every. Received: {self}")
        for length in self.at or (self.every,):
            _check_length(self, length)
        if list(self.at) != sorted(self.at) or len({type(length) for length in self.at}) > 1:
            raise ConvolveError(
                f"Step: milestones are whole steps or parts, the earliest first. Received: at={self.at}"
            )

    def factor(self, step: int, steps: int) -> float:
        if self.every is not None:
            return math.pow(self.by, step // max(1, _whole(self.every, steps)))
        return math.pow(self.by, bisect.bisect_right([_whole(length, steps) for length in self.at], step))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the rate down to `final` times it (Loshchilov and Hutter, 2017).

    >>> [round(Cosine().factor(step, 5), 2) for step in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        _check_factors(self, "final")

    def factor(self, step: int, steps: int) -> float:
        return _between(1.0, self.final, _part(step, steps))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from `start` times the rate to the rate in the first `warm` part, then down a cosine to `final` times it.

    (Smith and Topin, 2018, with cosine annealing.)

    >>> [round(OneCycle(warm=0.25).factor(step, 9), 2) for step in (0, 2, 8)]
    [0.04, 1.0, 0.0]
    """

    warm: float = 0.3
    start: float = 0.04
    final: float = 0.0004

    def __post_init__(self) -> None:
        if not 0 < self.warm < 1:
            raise ConvolveError(f"OneCycle: warm must be between 0 and 1. Received: warm={self.warm}")
        _check_factors(self, "start", "final")

    def factor(self, step: int, steps: int) -> float:
        part = _part(step, steps)
        if part < self.warm:
            return _between(self.start, 1.0, part / self.warm)
        return _between(1.0, self.final, (part - self.warm) / (1 - self.warm))


@dataclass(frozen=True, init=False)
class Sequence(Schedule):
    """Schedules one after the other: (length, schedule) pairs, then the one that takes the steps that are left.

    Each runs over its own steps as if they were all.

    >>> ramp = Polynomial(start=0.25, final=1)
    >>> [Sequence((4, ramp), (0.3, Constant()), Step(at=(1,))).factor(step, 10) for step in range(10)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1]
    """

    parts: tuple[tuple[Length, Schedule], ...]
    last: Schedule

    def __init__(self, *schedules: tuple[Length, Schedule] | Schedule) -> None:
        """
        Raises:
            ConvolveError: the last is no schedule, another no pair, or a length neither whole steps nor a part.
        """
        *parts, last = schedules or (None,)
        if not isinstance(last, Schedule):
            raise ConvolveError(
                f"Sequence: the last takes what is left: a schedule without a length. Received: {last!r}"
            )
        for pair in parts:
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Schedule)):
                raise ConvolveError(f"Sequence: all but the last are pairs (length, schedule). Received: {pair!r}")
            _check_length(self, pair[0])
        object.__setattr__(self, "parts", tuple(parts))
        object.__setattr__(self, "last", last)

    def factor(self, step: int, steps: int) -> float:
        begin = 0
        for length, schedule in self.parts:
            own = _whole(length, steps)
            if step < begin + own:
                return schedule.factor(step - begin, own)
            begin += own
        return self.last.factor(step - begin, steps - begin)


def WarmUp(length: Length = 0.05, then: Schedule = Constant(), start: float = 0.01) -> Sequence:
    """A straight line from `start` times the rate to the rate (Goyal et al., 2017), then another schedule.

    >>> [round(WarmUp(3, Cosine()).factor(step, 8), 2) for step in range(8)]
    [0.01, 0.51, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return Sequence((length, Polynomial(start=start, final=1.0)), then)


def _part(step: int, steps: int) -> float:
    """How far training has come: 0 at the first step, 1 at the last."""
    return step / max(1, steps - 1)


def _between(a: float, b: float, part: float) -> float:
    """Half a cosine from a to b."""
    return b + (a - b) * 0.5 * (1 + math.cos(math.pi * part))


def _whole(length: Length, steps: int) -> int:
    """A length in steps."""
    return length if isinstance(length, int) else round(length * steps)


def _check_length(schedule: Schedule, length: object) -> None:
    steps = isinstance(length, int) and not isinstance(length, bool) and length > 0
    if not steps and not (isinstance(length, float) and 0 < length < 1):
        raise ConvolveError(
            f"{type(schedule).__name__}: a length is a whole number of steps or a part of all, between 0.0 and 1.0. "
            f"Received: {length!r}"
        )


def _check_factors(schedule: Schedule, *names: str) -> None:
    for name in names:
        value = getattr(schedule, name)
        if not 0 <= value < math.inf:
            raise ConvolveError(f"{type(schedule).__name__}: {name} must not be negative. Received: {name}={value!r}")


def _check_positive(schedule: Schedule, name: str) -> None:
    value = getattr(schedule, name)
    if not 0 < value < math.inf:
        raise ConvolveError(f"{type(schedule).__name__}: {name} must be positive. Received: {name}={value!r}")
