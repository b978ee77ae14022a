"""Schedules: the learning rate as a function of how far training has come."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convolve.errors import ConvolveError


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
class Cosine(Schedule):
    """Half a cosine from the rate down to `final` times it (Loshchilov and Hutter, 2017).

    >>> [round(Cosine().factor(step, 5), 2) for step in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """

    final: float = 0.0

    def factor(self, step: int, steps: int) -> float:
        part = step / max(1, steps - 1)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * part))


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

    def factor(self, step: int, steps: int) -> float:
        part = step / max(1, steps - 1)
        if part < self.warm:
            return self._between(self.start, 1.0, part / self.warm)
        return self._between(1.0, self.final, (part - self.warm) / (1 - self.warm))

    def _between(self, a: float, b: float, part: float) -> float:
        return b + (a - b) * 0.5 * (1 + math.cos(math.pi * part))
