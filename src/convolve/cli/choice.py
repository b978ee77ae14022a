"""The rule by which `convolve train` chooses what nobody gave an option for. It looks at the training part alone.

**How hard are the data?** The fully-connected net looks at images and volumes: once, at 25,600 of them or 40 million
values at most. It is measured on the validation samples, as they are and mirrored. Where it is right in at least 90 %,
they are easy. Where it is right in mirrored ones at least 0.55 times as often, mirroring keeps what they show, and they
are flipped.

**By the samples:**

| samples | net | epochs at least | rate | augmentation |
|---|---|---|---|---|
| images of 24 x 24 to 40 x 40, easy | glyphs | 7 | 0.015 | turned, sheared by 10 degrees, moved by 7 %, scaled 10 % |
| images, smaller, easy | digits | 7 | 0.005 | turned by 10 degrees, moved by 7 %, scaled by 10 % |
| images of 24 x 24 to 40 x 40, hard | thumbnails | 12 | 0.015, by Muon | moved by 4 %, half with a box erased |
| images, smaller, hard | small (from 8 x 8), else digits | 12 | 0.015, 0.005 | moved by 7 % |
| images, larger | resnet20 | 12 | 0.005 | a crop of 60 % of the area at least |
| signals of 1,772 values and more | m5_narrow | 40 | 0.005 | moved by 10 %, 6 dB louder or softer, noise, silences |
| signals, shorter | digits | 12 | 0.005 | moved by 5 % |
| volumes | digits (up to 1,600 voxels), else cnn3d | 12 | 0.005 | moved by 7 % |
| less than 4 values in a dimension | mlp | 12 | 0.005 | none |

**By their number:** 128 samples a step, 64 where there are fewer than 10,000. A small set is seen more often, until
there are 1,500 steps, but not more than 100 times. The highest rate of AdamW, or Muon, is the table's times
sqrt(batch / 128), reached in one cycle that ends near 0; the weights are averaged (each step keeps 0.998), and labels
smoothed by 0.1 unless the data are easy. `thumbnails` ends at 0.15 of its rate, and each step keeps 0.999: the average
is then one of several good places. A net that an option names is trained by AdamW at 0.005, unless the table has it.

The row of easy images was decided on MNIST, that of hard ones on Fashion-MNIST, that of long signals on spoken digits,
on parts of their training samples that were held out for that; Fashion-MNIST decided where "easy" ends, too. The others
follow what is customary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from convolve import zoo
from convolve.augment import Affine, Augmentation, Crop, Erase, Flip, Gain, Noise, Shift, TimeMask
from convolve.cli.output import count, percent
from convolve.cli.recipe import ADAMW, BASELINE, MUON, RECIPE, zoo_net
from convolve.data.dataset import Dataset
from convolve.model import Model
from convolve.source import Rows, rows
from convolve.training.schedule import OneCycle

SMALL = 40 * 40
"""Pixels (or samples, or voxels) up to which an image is small."""
LONG = zoo.LEAST_OF_M5
"""Values from which a signal is long enough for M5."""
LOOKED_AT, VALUES, WATCHED = 25_600, 40_000_000, 3_000
EASY, KEPT = 0.9, 0.55
FEW = 10_000


@dataclass(frozen=True)
class Learning:
    """How a net learns, whatever the data."""

    rate: float = RECIPE.optimizers[ADAMW].rate
    """The highest, for batches of the recipe's size."""
    optimizer: str = ADAMW
    average: float | None = RECIPE.average
    final: float = RECIPE.schedule.final
    """Part of the rate that the last step has."""


LEARNING = {
    "glyphs": Learning(0.015),
    "small": Learning(0.015),
    "thumbnails": Learning(0.015, MUON, average=0.999, final=0.15),
}
"""Of nets that are better off otherwise than by the recipe."""


@dataclass(frozen=True)
class Choice:
    """What the rule says, and why."""

    net: str
    epochs: int
    batch_size: int
    smoothing: float
    augment: tuple[Augmentation, ...]
    why: str

    def learning(self, net: str) -> Learning:
        """How the net that is chosen learns, or another, from batches of this size.

        >>> choice = Choice("glyphs", 7, 32, 0.0, (), "")
        >>> choice.learning("glyphs").rate, choice.learning("lenet5").rate
        (0.0075, 0.0025)
        """
        known = LEARNING.get(net, Learning())
        return replace(known, rate=known.rate * math.sqrt(self.batch_size / RECIPE.batch_size))

    def epochs_of(self, images: int, batch_size: int) -> int:
        """How often so many training images are seen at least, and at most 100 times, until there are enough steps.

        >>> Choice("digits", 7, 128, 0.0, (), "").epochs_of(57_000, 128)
        7
        >>> Choice("digits", 7, 128, 0.0, (), "").epochs_of(2_560, 64)
        38
        """
        steps = -(-images // batch_size)
        return max(self.epochs, min(RECIPE.most_epochs, -(-RECIPE.least_steps // steps)))


def net_for(spatial: tuple[int, ...]) -> str:
    """The net for samples of this size, whatever they show, unless they are easy.

    >>> net_for((32, 32)), net_for((96, 64)), net_for((8000,)), net_for((28, 28, 28)), net_for((2, 9))
    ('thumbnails', 'resnet20', 'm5_narrow', 'cnn3d', 'mlp')
    """
    values, least = math.prod(spatial), min(spatial)
    if least < 4:
        return BASELINE
    if len(spatial) == 1:
        return "m5_narrow" if values >= LONG else "digits"
    if len(spatial) > 2:
        return "cnn3d" if values > SMALL and least >= 8 else "digits"
    if values > SMALL:
        return "resnet20"
    return "thumbnails" if least >= 24 else "small" if least >= 8 else "digits"


def choose(dataset: Dataset, x: Rows, y: np.ndarray, held: tuple[Rows, np.ndarray]) -> Choice:
    """What the rule says for these samples to learn from, and those to watch."""
    spatial = dataset.input_shape[:-1]
    net, size = net_for(spatial), RECIPE.batch_size if len(x) >= FEW else RECIPE.batch_size // 2
    known = told(len(x), spatial)
    if net == BASELINE:
        return Choice(net, 12, size, RECIPE.smoothing, (), f"{known}: no room for a filter")
    if net == "m5_narrow":
        steps: tuple[Augmentation, ...] = (Shift(0.1), Gain(6.0), Noise(_noise(x)), TimeMask(0.1, 2))
        return Choice(net, 40, size, RECIPE.smoothing, steps, known)
    if len(spatial) == 1:
        return Choice(net, 12, size, RECIPE.smoothing, (Shift(0.05),), known)
    right, mirrored = look(dataset, x, y, held)
    why = f"{known}; a fully-connected net soon knows {percent(right)} of them, {percent(mirrored)} mirrored"
    flips = (Flip(),) if mirrored >= KEPT * right else ()
    if right >= EASY and len(spatial) == 2 and math.prod(spatial) <= SMALL:
        if min(spatial) >= 24:
            steps = (*flips, Affine(rotate=10.0, shift=0.07, scale=(0.9, 1.1), shear=10.0))
            return Choice("glyphs", 7, size, 0.0, steps, why)
        steps = (*flips, Affine(rotate=10.0, shift=0.07, scale=(0.9, 1.1)))
        return Choice("digits", 7, size, 0.0, steps, why)
    moved = {"thumbnails": (Shift(0.04), Erase(scale=(0.02, 0.15))), "resnet20": (Crop((0.6, 1.0)),)}
    return Choice(net, 12, size, RECIPE.smoothing, (*flips, *moved.get(net, (Shift(0.07),))), why)


def told(samples: int, spatial: tuple[int, ...]) -> str:
    """How many samples there are, and of what size.

    >>> told(60000, (28, 28))
    '60,000 images of 28 x 28'
    """
    known = count(samples, {1: "signal", 2: "image", 3: "volume"}.get(len(spatial), "sample"))
    return f"{known} of {' x '.join(map(str, spatial))}"


def look(dataset: Dataset, x: Rows, y: np.ndarray, held: tuple[Rows, np.ndarray]) -> tuple[float, float]:
    """The accuracy that the fully-connected net soon reaches on the samples to watch, and on their mirror images."""
    most = max(RECIPE.batch_size, min(LOOKED_AT, VALUES // math.prod(dataset.input_shape)))
    chosen = np.random.Generator(np.random.Philox(key=[0, 0])).permutation(len(x))[:most]
    seen, watched = rows(x, chosen), rows(held[0], range(min(WATCHED, most, len(held[0]))))
    model = Model(zoo_net(BASELINE, seen, len(dataset.classes)), dataset.input_shape)
    epochs = max(1, min(RECIPE.most_epochs, most // len(chosen)))
    model.fit(seen, y[chosen], epochs, RECIPE.batch_size, RECIPE.optimizers[ADAMW], OneCycle())
    labels = held[1][: len(watched)]
    mirrored = np.ascontiguousarray(np.flip(watched, -2))
    return model.evaluate(watched, labels)["accuracy"], model.evaluate(mirrored, labels)["accuracy"]


def _noise(x: Rows) -> float:
    """A twentieth of the standard deviation, in the units of `Noise`."""
    deviation = float(np.std(rows(x, range(0, len(x), max(1, len(x) // 1000))), dtype=np.float64)) / 20
    return float(f"{deviation / 255 if x.dtype == np.uint8 else deviation:.2g}")
