"""The loop around the step: epochs, shuffling, validation, callbacks, and what happens when training goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convolve.augment import Pipeline
from convolve.errors import ConvolveError, DataError, DivergenceError
from convolve.network import Network
from convolve.source import Rows
from convolve.training.feed import Feed
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
class Underway:
    """What an epoch that is not whole has come to, and how long training has taken until then."""

    batches: int = 0
    samples: int = 0
    loss: float = 0.0
    """Sum over the samples."""
    right: int = 0
    decided: int = 0
    seconds: float = 0.0


MERITS = ("validation_iou", "validation_f1_micro", "validation_accuracy")
"""Metrics by which an epoch is better than another."""


@dataclass
class History:
    """What each epoch reached: a dict of metrics an epoch."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    underway: Underway = field(default_factory=Underway)
    """Where a checkpoint within an epoch goes on."""
    waiting: float = 0.0
    """The share of the time that training waited for data, augmentation included."""

    def __getitem__(self, name: str) -> list[float]:
        """One metric over the epochs."""
        return [epoch[name] for epoch in self.epochs if name in epoch]

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def best(self) -> int | None:
        """The best epoch, counted from 1, by validation data: None where there were none.

        That of the highest validation_iou, validation_f1_micro or validation_accuracy, the first of these that there
        is; of equal ones (and where there is none) that of the lowest validation_loss, of equal ones the first.

        >>> History([{"validation_loss": 0.3}, {"validation_loss": 0.1}, {"validation_loss": 0.2}]).best
        2
        """
        merits = [(_merit(epoch), -number) for number, epoch in enumerate(self.epochs, 1) if "validation_loss" in epoch]
        return -max(merits)[1] if merits else None


def _merit(epoch: dict[str, float]) -> tuple[float, float]:
    """What is larger in better epochs; numbers that are none are the smallest."""
    merit = next((epoch[name] for name in MERITS if name in epoch), 0.0)
    loss = epoch["validation_loss"]
    return (-math.inf if math.isnan(merit) else merit), (-math.inf if math.isnan(loss) else -loss)


def order_of(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's samples: a permutation that depends on the seed and the epoch alone."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return random.permutation(count)


def fit(
    network: Network,
    trainer: Trainer,
    x: Rows,
    y: Any,
    epochs: int,
    batch_size: int,
    schedule: Schedule | None = None,
    callbacks: Sequence[Callback] = (),
    validate: Evaluate | None = None,
    seed: int = 0,
    history: History | None = None,
    patience: int | None = None,
    augment: Pipeline | None = None,
    until: int | None = None,
) -> History:
    """Train for whole epochs; goes on where `history` ends, within an epoch too, and adds to it.

    Args:
        network, trainer: what is trained, and by what. With averages, these are validated, and left in the network.
        x, y: the samples, canonical; both may be sources, whose batches are then made ahead in another thread.
        epochs, batch_size: how often each sample is seen, and how many a step.
        schedule: of the rate.
        callbacks: called after each step and each epoch.
        validate: called after each epoch.
        seed: of the orders.
        history: of a training that is resumed.
        augment: what is done to each batch, by the seed and the step.
        patience: end after so many epochs that were no better than an earlier one (`History.best`).
        until: end after this epoch, of a training that another trainer goes on with; schedule, orders and progress are
            those of all `epochs`.

    Raises:
        DivergenceError: the loss is no longer finite; the parameters are those of the last whole epoch.
        ConvolveError: patience without validation.
    """
    history = History() if history is None else history
    schedule = schedule or Constant()
    count = len(x)
    _check(epochs, batch_size, patience, validate)
    if count == 0:
        raise DataError("the training set is empty: give at least one sample")
    per_epoch = -(-count // batch_size)
    steps = epochs * per_epoch
    feed = Feed(x, y, batch_size, augment, seed, network.threads)
    good = network.snapshot()
    before = history.underway.seconds
    began = time.perf_counter()
    seen = 0
    while len(history) < (epochs if until is None else until) and not _tired(history, patience):
        epoch, now = len(history), history.underway
        order = order_of(count, seed, epoch)
        for position, samples, target in feed.epoch(order, epoch * per_epoch, now.batches):
            step = epoch * per_epoch + position
            rate = trainer.optimizer.rate * schedule.factor(step, steps)
            loss, output = trainer.step(samples, target, rate)
            if not math.isfinite(loss):
                network.restore(good)
                raise DivergenceError(
                    f"the loss became {loss} at step {position + 1} of epoch {epoch + 1} (rate {rate:.3g}); "
                    f"the parameters are those after epoch {epoch}. Use a smaller rate, or clip with clip=1.0"
                )
            seen += len(samples)
            found = hits(trainer.loss, output, target)
            now.batches, now.samples = position + 1, now.samples + len(samples)
            now.loss += loss * len(samples)
            now.right, now.decided = now.right + int(found.sum()), now.decided + found.size
            elapsed = time.perf_counter() - began
            now.seconds = before + elapsed
            history.waiting = feed.waited / elapsed
            state = Progress(
                epoch=epoch + 1,
                epochs=epochs,
                step=step + 1,
                steps=steps,
                loss=now.loss / now.samples,
                accuracy=now.right / now.decided if now.decided else None,
                images_per_second=seen / elapsed,
                seconds_left=((epochs - epoch) * count - now.samples) * elapsed / seen,
                epoch_done=False,
            )
            for callback in callbacks:
                callback(state)
        metrics = {"loss": now.loss / count} | ({"accuracy": now.right / now.decided} if now.decided else {})
        metrics["rate"] = rate
        if validate:
            with trainer.averaged():
                metrics |= {f"validation_{name}": value for name, value in validate().items()}
        metrics["seconds"] = before + time.perf_counter() - began
        history.epochs.append(metrics)
        history.underway = Underway(seconds=metrics["seconds"])
        good = network.snapshot()
        for callback in callbacks:
            callback(replace(state, epoch_done=True, metrics=metrics))
    trainer.settle()
    return history


def _tired(history: History, patience: int | None) -> bool:
    return patience is not None and history.best is not None and len(history) - history.best >= patience


def _check(epochs: int, batch_size: int, patience: int | None, validate: Evaluate | None) -> None:
    given = {"epochs": epochs, "batch_size": batch_size} | ({} if patience is None else {"patience": patience})
    for name, value in given.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ConvolveError(f"{name} must be a whole number, 1 or more. Received: {name}={value!r}")
    if patience is not None and validate is None:
        raise ConvolveError("patience waits for better validation: give validation=(x, y), too")
