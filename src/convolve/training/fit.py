"""The loop around the step: epochs, shuffling, validation, callbacks, and what happens when training goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from convolve.errors import ConvolveError, DataError, DivergenceError
from convolve.network import Network
from convolve.training.losses import hits
from convolve.training.schedule import Constant, Schedule
from convolve.training.trainer import Trainer


@dataclass(frozen=True)
class Progress:
    """Where training stands, for callbacks: after each step, and after each epoch with `epoch_done`."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float | None
    images_per_second: float
    seconds_left: float
    epoch_done: bool
    metrics: dict[str, float] = field(default_factory=dict)


Callback = Callable[[Progress], None]
Evaluate = Callable[[], dict[str, float]]


@dataclass
class History:
    """What each epoch reached: a dict of metrics an epoch."""

    epochs: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[float]:
        """One metric over the epochs."""
        return [epoch[name] for epoch in self.epochs if name in epoch]

    def __len__(self) -> int:
        return len(self.epochs)


def order_of(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's samples: a permutation that depends on the seed and the epoch alone."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return random.permutation(count)


def fit(
    network: Network,
    trainer: Trainer,
    x: np.ndarray,
    y: np.ndarray,
    epochs: int,
    batch_size: int,
    schedule: Schedule | None = None,
    callbacks: Sequence[Callback] = (),
    validate: Evaluate | None = None,
    seed: int = 0,
    history: History | None = None,
) -> History:
    """Train for whole epochs; starts after those that `history` already has, and adds to it.

    Raises:
        DivergenceError: the loss is no longer finite; the parameters are those of the last whole epoch.
    """
    history = History() if history is None else history
    schedule = schedule or Constant()
    count = len(x)
    _check(epochs, batch_size)
    if count == 0:
        raise DataError("the training set is empty: give at least one sample")
    per_epoch = -(-count // batch_size)
    steps = epochs * per_epoch
    good = network.snapshot()
    before = history["seconds"][-1] if len(history) else 0.0
    began = time.perf_counter()
    seen = 0
    for epoch in range(len(history), epochs):
        order = order_of(count, seed, epoch)
        total, right, decided = 0.0, 0, 0
        for position in range(per_epoch):
            step = epoch * per_epoch + position
            chosen = order[position * batch_size : (position + 1) * batch_size]
            target = y[chosen]
            rate = trainer.optimizer.rate * schedule.factor(step, steps)
            loss, output = trainer.step(x[chosen], target, rate)
            if not math.isfinite(loss):
                network.restore(good)
                raise DivergenceError(
                    f"the loss became {loss} at step {position + 1} of epoch {epoch + 1} (rate {rate:.3g}); "
                    f"the parameters are those after epoch {epoch}. Use a smaller rate, or clip with clip=1.0"
                )
            total += loss * len(chosen)
            seen += len(chosen)
            found = hits(trainer.loss, output, target)
            right, decided = right + int(found.sum()), decided + found.size
            done = position * batch_size + len(chosen)
            speed = seen / (time.perf_counter() - began)
            state = Progress(
                epoch=epoch + 1,
                epochs=epochs,
                step=step + 1,
                steps=steps,
                loss=total / done,
                accuracy=right / decided if decided else None,
                images_per_second=speed,
                seconds_left=((epochs - epoch) * count - done) / speed,
                epoch_done=False,
            )
            for callback in callbacks:
                callback(state)
        metrics = {"loss": total / count} | ({"accuracy": right / decided} if decided else {})
        metrics["rate"] = rate
        if validate:
            metrics |= {f"validation_{name}": value for name, value in validate().items()}
        metrics["seconds"] = before + time.perf_counter() - began
        history.epochs.append(metrics)
        good = network.snapshot()
        for callback in callbacks:
            callback(_finished(state, metrics))
    return history


def _finished(state: Progress, metrics: dict[str, float]) -> Progress:
    return Progress(**{**vars(state), "epoch_done": True, "metrics": metrics})


def _check(epochs: int, batch_size: int) -> None:
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ConvolveError(f"{name} must be a whole number, 1 or more. Received: {name}={value!r}")
