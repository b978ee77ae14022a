"""Augmentations applied: batches to train on, and the views that predictions are averaged over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.augment.draws import Draws
from convolve.augment.fill import Mixing, Plan, filled, nearest, pixels
from convolve.augment.steps import (
    Augmentation,
    Contrast,
    CutMix,
    Erase,
    Fill,
    Floats,
    Geometric,
    Mixup,
    Noise,
    TimeMask,
    Tonal,
)
from convolve.errors import ConvolveError
from convolve.native.workers import default_threads

RGB = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601)."""
MOST_VIEWS = 100


@dataclass(frozen=True)
class Pipeline:
    """Augmentations for batches of one kind.

    Args:
        steps: what is done, in this order within each kind (see the package).
        classes: how many there are, where targets are labels: mixing makes probabilities of them.
        places: whether targets have a sample's spatial dimensions: geometry is then theirs, too.

    Raises:
        ConvolveError: steps that contradict each other; the message says which.

    >>> x, y = np.arange(24, dtype=np.float32).reshape(2, 12, 1), np.array([0, 1], np.int32)
    >>> from convolve.augment import Mixup, Shift
    >>> made, targets = Pipeline((Shift(2), Mixup()), classes=2).apply(x, y, seed=0, step=0)
    >>> made.shape, targets.shape
    ((2, 12, 1), (2, 2))
    """

    steps: tuple[Augmentation, ...]
    classes: int | None = None
    places: bool = False

    def __post_init__(self) -> None:
        for step in self.steps:
            if Augmentation.vocabulary.get(type(step).__name__) is not type(step):
                known = ", ".join(Augmentation.vocabulary)
                raise ConvolveError(f"augment: expected a list of augmentations ({known}). Received: {step!r}")
        if len({step.outside for step in self.steps if isinstance(step, Geometric) and step.outside}) > 1:
            raise ConvolveError(f"augment: all steps must agree on fill, as they are one map. Received: {self.steps}")

    def apply(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        seed: int,
        step: int,
        rows: NDArray[np.integer[Any]] | None = None,
        threads: int | None = None,
        batch: int | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """A batch as it is trained on in one step; or several of them, one after the other.

        Args:
            x: (n, *spatial, channels), float32 or uint8, contiguous; the result has its type.
            y: (n, ...): int32 labels, which mixing makes float32 probabilities of, or float32 values.
            seed, step: what the random numbers are drawn from.
            rows: which of `x` and `y`, in this order; by default all.
            threads: to compute with; the bits do not depend on it.
            batch: rows a step, the first of which is `step`; by default all.
        """
        rows = np.arange(len(x)) if rows is None else rows
        plan = self.plan(x, rows, seed, step, batch)
        made, targets = filled(plan, x, rows, threads or default_threads()), y[rows]
        if self.places and any(isinstance(s, Geometric) for s in self.steps):
            targets = self._placed(plan, x, y, rows, threads)
        if plan.mixings and targets.dtype.kind in "iu":
            targets = self._probabilities(targets)
        for mixing in plan.mixings:
            targets = mixing.of_places(targets) if self.places else mixing.of_wholes(targets, x.shape[1:-1])
        return made, targets

    def plan(
        self, x: NDArray[Any], rows: NDArray[np.integer[Any]], seed: int, step: int, batch: int | None = None
    ) -> Plan:
        """What each row of the batch, or of several, undergoes."""
        spatial, channels, count = x.shape[1:-1], x.shape[-1], len(rows)
        full = 255.0 if x.dtype == np.uint8 else 1.0
        grey = np.array(RGB if channels == 3 else [1 / channels] * channels)
        draws = [Draws(seed, step, place, count, batch) for place in range(len(self.steps))]
        maps = np.tile(np.eye(len(spatial) + 1), (count, 1, 1))
        tone = np.tile([1.0, 0.0, 0.0], (count, 1))
        mean = self._mean_grey(x, rows, grey)
        noise, key = np.zeros(count), np.zeros(count, np.int64)
        no_box = np.zeros((count, 1, len(spatial), 2), np.int32)
        boxes, values, mixings = [no_box[:, :0]], [np.zeros(0)], []
        for one, drawn in zip(self.steps, draws, strict=True):
            if isinstance(one, Geometric):
                maps = maps @ one.maps(drawn, spatial)
            elif isinstance(one, Tonal):
                tone, mean = _joined(tone, one.tones(drawn, mean, full), mean)
            elif isinstance(one, Noise):
                noise, key = np.hypot(noise, one.amplitudes(drawn, full)), drawn.keys.view(np.int64)
            elif isinstance(one, (Erase, TimeMask)):
                boxes.append(one.boxes(drawn, spatial))
                values.append(np.full(boxes[-1].shape[1], one.value))
            elif isinstance(one, Mixup):
                mixings.append(Mixing(drawn.shuffled(), one.shares(drawn).astype(np.float32), no_box[:, 0]))
            elif isinstance(one, CutMix):
                whole = np.ones(count, np.float32)
                mixings.append(Mixing(drawn.shuffled(), whole, one.boxes(drawn, spatial)[:, 0]))
        fills: list[Fill] = [s.outside for s in self.steps if isinstance(s, Geometric) and s.outside]
        return Plan(
            pixels(maps, spatial),
            (*fills, "edge")[0],
            tone.astype(np.float32),
            grey.astype(np.float32),
            noise.astype(np.float32),
            key,
            np.concatenate(boxes, 1),
            np.concatenate(values).astype(np.float32),
            tuple(mixings),
        )

    def _mean_grey(self, x: NDArray[Any], rows: NDArray[np.integer[Any]], grey: Floats) -> Floats:
        """(rows,): of the samples as they are, where a step asks for it."""
        if not any(isinstance(step, Contrast) for step in self.steps):
            return np.zeros(len(rows))
        return np.array([x[row].reshape(-1, len(grey)).mean(0, dtype=np.float64) @ grey for row in rows])

    def _placed(
        self, plan: Plan, x: NDArray[Any], y: NDArray[Any], rows: NDArray[np.integer[Any]], threads: int | None
    ) -> NDArray[Any]:
        """Targets of places, moved as their samples are."""
        spatial = x.shape[1:-1]
        if y.shape[1 : 1 + len(spatial)] != spatial:
            raise ConvolveError(
                f"augment: targets of places {y.shape[1:]} do not lie on samples of {x.shape[1:]}: flips, shifts and "
                "the like cannot be applied to both. Leave them out, or give targets of the samples' size"
            )
        chosen = y[rows]
        if chosen.dtype.kind in "iu":
            return nearest(plan, chosen.astype(np.int32))
        moved = plan.geometry(y.shape[-1])
        return filled(moved, np.ascontiguousarray(chosen), np.arange(len(rows)), threads or default_threads())

    def _probabilities(self, y: NDArray[Any]) -> NDArray[Any]:
        if self.classes is None:
            raise ConvolveError(
                "augment: Mixup and CutMix need targets that can be blended; say how many classes there are"
            )
        probabilities: NDArray[np.float32] = np.eye(self.classes, dtype=np.float32)[y]
        return probabilities


@dataclass(frozen=True)
class Views:
    """The same samples seen in several ways, for predictions that are averaged: flips, shifts, and both.

    The first view is the sample itself. A `Flip` doubles the views, a `Shift` makes 2 * rank + 1 of each.

    >>> from convolve.augment import Flip
    >>> Views((Flip(),)).of(np.arange(3, dtype=np.float32).reshape(1, 3, 1))[1].ravel()
    array([2., 1., 0.], dtype=float32)
    """

    steps: tuple[Augmentation, ...]

    def __post_init__(self) -> None:
        for step in self.steps:
            if not isinstance(step, Geometric):
                raise ConvolveError(f"{step!r}: predictions are averaged over flips and shifts only; leave it out")
        Pipeline(self.steps)

    def of(self, x: NDArray[Any], threads: int | None = None) -> list[NDArray[Any]]:
        """x (n, *spatial, channels) in each view."""
        return [self._seen(x, one, threads) for one in self._maps(x.shape[1:-1])]

    def back(self, y: Sequence[NDArray[Any]], threads: int | None = None) -> list[NDArray[Any]]:
        """What a net says of places in each view, (n, *spatial, channels), moved to where these lie in the sample."""
        maps = self._maps(y[0].shape[1:-1])
        return [
            self._seen(one, np.asarray(np.linalg.inv(map_), np.float64), threads)
            for one, map_ in zip(y, maps, strict=True)
        ]

    def _maps(self, spatial: tuple[int, ...]) -> list[Floats]:
        choices = [step.views(spatial) for step in self.steps if isinstance(step, Geometric)]
        if math.prod(map(len, choices)) > MOST_VIEWS:
            raise ConvolveError(f"augment: more than {MOST_VIEWS} views of each sample; give fewer steps")
        return [reduce(np.matmul, chosen, np.eye(len(spatial) + 1)) for chosen in product(*choices)]

    def _seen(self, x: NDArray[Any], map_: Floats, threads: int | None) -> NDArray[Any]:
        rows = np.arange(len(x))
        plan = Pipeline(self.steps).plan(x, rows, 0, 0).geometry(x.shape[-1])
        maps = pixels(np.tile(map_, (len(x), 1, 1)), x.shape[1:-1])
        return filled(replace(plan, map=maps), x, rows, threads or default_threads())


def _joined(first: Floats, then: Floats, mean: Floats) -> tuple[Floats, Floats]:
    """Two tones as one, and the mean grey after it. With weights that sum to 1 the grey of v + b g + c is known."""
    a, b, c = first.T
    a2, b2, c2 = then.T
    made = np.stack([a2 * a, a2 * b + b2 * (a + b), (a2 + b2) * c + c2], 1)
    return made, (a2 + b2) * mean + c2
