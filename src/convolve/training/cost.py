"""What a training costs: predicted from its programs and a few steps, and what it did cost."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from convolve.source import Pairs, Rows
from convolve.training.feed import labels_of
from convolve.training.trainer import Trainer

MEASURED = 3
"""Steps that are timed; the quickest counts."""
FORWARDS = 3
"""A training step costs about as much as so many predictions: forward, and two gradients of each product."""
COPIES = 3
"""Of all arrays, beside themselves: what a diverging epoch goes back to, and what is being saved, twice."""


@dataclass(frozen=True)
class Cost:
    """Seconds an epoch, and bytes of memory at most (None where the system does not say)."""

    epoch_seconds: float
    peak_bytes: int | None


def predict(trainer: Trainer, x: Rows, y: Any, batch_size: int, watched: int = 0) -> Cost:
    """What epochs over (x, y) will cost, with `watched` samples measured after each.

    Some steps are made and undone: parameters, statistics and the optimizer's state are those of before, bit for bit.

    Args:
        trainer: before its first step, or resumed.
        x, y: the training samples, canonical.
        batch_size: samples a step.
        watched: how many more are only predicted.
    """
    network, steps = trainer.network, trainer.steps
    first, targets = Pairs(x, y).batch(np.arange(min(batch_size, len(x))))
    batch = first, labels_of(targets)
    trainer.executable(*batch)
    kept = network.snapshot()
    seconds = []
    for _ in range(1 + MEASURED):
        began = time.perf_counter()
        trainer.step(*batch, rate=0.0)
        seconds.append(time.perf_counter() - began)
    network.restore(kept)
    trainer.steps = steps
    sample = min(seconds[1:]) / len(batch[0])
    memory = resident_bytes()
    stores = sum(array.nbytes for array in network.stores.values())
    peak = None if memory is None else max(memory + COPIES * stores, peak_bytes() or 0)
    return Cost(sample * (len(x) + watched / FORWARDS), peak)


def resident_bytes() -> int | None:
    """Memory that this process has now; None where that is not known."""
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of numbers, read in one look
            pages = int(file.read().split()[1])
        import resource

        return pages * resource.getpagesize()
    return peak_bytes()


def peak_bytes() -> int | None:
    """The most memory that this process has had; None where that is not known."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
