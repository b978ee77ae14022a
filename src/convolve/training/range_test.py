"""Which learning rate? A range test: training for a few hundred steps while the rate grows (Smith, 2017).

**The rule.** The rate grows from 1e-6 to 10 in 200 steps, by the same factor in each. The loss is smoothed: an
exponential mean of the steps that keeps 0.9, divided by 1 - 0.9^t, as in Adam. The test ends when the smoothed loss is
four times the lowest that it was, or no number. Suggested, as the highest rate of a cycle, is a third of the first rate
at which the smoothed loss had made nine tenths of its way down, from the first to the lowest: it still falls there.
(Where a loss stays low over decades of rates, as with batch norm, its lowest point says little.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from convolve.errors import ConvolveError
from convolve.training.feed import Feed
from convolve.training.fit import order_of
from convolve.training.trainer import Trainer

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 200
KEEP = 0.9
DIVERGED = 4.0
DESCENT = 0.9
SETTLED = 10
"""Steps before which nothing is said to diverge."""


@dataclass
class RangeTest:
    """A loss and its smoothed mean for each rate that was tried."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    _mean: float = 0.0

    def add(self, rate: float, loss: float) -> bool:
        """Note a step; whether another makes sense."""
        self._mean = KEEP * self._mean + (1 - KEEP) * loss
        smoothed = self._mean / (1 - KEEP ** (len(self.rates) + 1))
        if not math.isfinite(smoothed):
            return False
        self.rates.append(rate)
        self.losses.append(loss)
        self.smoothed.append(smoothed)
        return len(self.rates) < SETTLED or smoothed <= DIVERGED * min(self.smoothed)

    @property
    def suggested(self) -> float:
        """A third of the first rate at which nine tenths of the way down were made.

        >>> test = RangeTest()
        >>> [test.add(rate, loss) for rate, loss in ((1e-3, 2.0), (1e-2, 1.9), (3e-2, 0.5), (1e-1, 0.5), (1.0, 9.0))]
        [True, True, True, True, True]
        >>> test.suggested
        0.033
        """
        lowest = min(self.smoothed)
        enough = self.smoothed[0] - DESCENT * (self.smoothed[0] - lowest)
        first = next(i for i, loss in enumerate(self.smoothed) if loss <= max(enough, lowest))
        return float(f"{self.rates[first] / 3:.2g}")


def range_test(
    trainer: Trainer,
    feed: Feed,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    done: Callable[[int], object] = int,
) -> RangeTest:
    """Train while the rate grows. Afterwards the net and the trainer are as they were.

    Args:
        trainer: before its first step.
        feed: the samples, in the orders of its seed, as often as it takes.
        lowest, highest, steps: how the rate grows.
        done: called with the steps that were made.

    Raises:
        ConvolveError: the loss was no number from the first step on, or the rates do not grow.
    """
    if not (0 < lowest < highest < math.inf) or steps < 2:
        raise ConvolveError(f"a range test needs growing rates: lowest={lowest}, highest={highest}, steps={steps}")
    network, kept = trainer.network, trainer.network.snapshot()
    found = RangeTest()
    batches = (
        batch for epoch in count() for batch in feed.epoch(order_of(len(feed.x), feed.seed, epoch), trainer.steps)
    )
    try:
        for step, (_, x, y) in zip(range(steps), batches, strict=False):
            rate = lowest * (highest / lowest) ** (step / (steps - 1))
            loss, _ = trainer.step(x, y, rate)
            done(step + 1)
            if not found.add(rate, loss):
                break
    finally:
        batches.close()
        network.restore(kept)
        network.reset("state")
        trainer.steps = 0
    if not found.rates:
        raise ConvolveError(f"the loss is {loss} in the very first step: the net or the data hold what is no number")
    return found
