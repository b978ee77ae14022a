"""What can be done to samples: small frozen dataclasses, one vocabulary for all ranks.

A geometric step gives each row an affine map: from a place in the result to the place in the input that is seen there,
both counted in samples from the middle. A tonal step gives each row (a, b, c): a value v becomes a v + b g + c, where g
is the sample's grey value at that place (of three channels 0.299 R + 0.587 G + 0.114 B, else their mean).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from convolve.augment.draws import Draws
from convolve.errors import ConvolveError
from convolve.storage import Word, decode, encode

Floats = NDArray[np.float64]
Fill = Literal["zero", "edge", "reflect"]
"""What is seen where a map leaves the input: nothing, its nearest value, or its mirror image (abc -> cba|b)."""
_TRIES = 64
Amount = int | float | tuple[int | float, ...]


class Augmentation(Word):
    """Something that is done to each sample of a batch, at random."""

    vocabulary: ClassVar[Mapping[str, type]] = {}


class Geometric(Augmentation):
    """A map of places."""

    @property
    def outside(self) -> Fill | None:
        """What it shows of what lies outside of the input; None where that is never seen."""
        return getattr(self, "fill", None)

    def maps(self, draws: Draws, spatial: tuple[int, ...]) -> Floats:
        """(rows, rank + 1, rank + 1), homogeneous."""
        raise NotImplementedError

    def views(self, spatial: tuple[int, ...]) -> list[Floats]:
        """The maps of test-time augmentation, (rank + 1, rank + 1) each, the first of which changes nothing."""
        raise ConvolveError(f"{self}: predictions are averaged over flips and shifts only; leave it out")


class Tonal(Augmentation):
    """A change of values that depends on them alone."""

    def tones(self, draws: Draws, mean: Floats, full: float) -> Floats:
        """(rows, 3), from each row's mean grey value so far; `full` is the highest value, 255 or 1."""
        raise NotImplementedError


class Boxed(Augmentation):
    """Something that happens within a box."""

    def boxes(self, draws: Draws, spatial: tuple[int, ...]) -> NDArray[np.int32]:
        """(rows, boxes, rank, 2): first and last + 1; an empty one where nothing happens."""
        raise NotImplementedError


# geometry


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirror along one axis: -1 is the width (or time), -2 the height, -3 the depth.

    >>> Flip(axis=-2)
    Flip(axis=-2, p=0.5)
    """

    axis: int = -1
    p: float = 0.5

    def __post_init__(self) -> None:
        _require(self.axis < 0, self, "axis counts from the last, -1, -2 or -3")
        _probability(self, self.p)

    def maps(self, draws: Draws, spatial: tuple[int, ...]) -> Floats:
        made = _unchanged(draws.rows, len(spatial))
        axis = _axis(self, self.axis, len(spatial))
        made[draws.uniform()[:, 0] < self.p, axis, axis] = -1
        return made

    def views(self, spatial: tuple[int, ...]) -> list[Floats]:
        plain, mirrored = _unchanged(2, len(spatial))
        axis = _axis(self, self.axis, len(spatial))
        mirrored[axis, axis] = -1
        return [plain, mirrored]


@dataclass(frozen=True)
class Shift(Geometric):
    """Move by up to `amount` samples, whole ones, along each axis: what is padded by as much and cropped at random.

    `amount` is a number for all axes or one each; a float is a share of the axis, an int a number of samples.

    >>> Shift(4, fill="reflect"), Shift((0.1, 0.2))
    (Shift(amount=4, fill='reflect'), Shift(amount=(0.1, 0.2), fill='zero'))
    """

    amount: Amount = 2
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        _require(min(_several(self.amount), default=-1) >= 0, self, "amount is not below 0")
        _require(all(a <= 1 for a in _several(self.amount) if isinstance(a, float)), self, "a share is at most 1")
        _fill(self, self.fill)

    def maps(self, draws: Draws, spatial: tuple[int, ...]) -> Floats:
        reach = self._reach(spatial)
        made = _unchanged(draws.rows, len(spatial))
        made[:, :-1, -1] = np.floor(draws.uniform(len(spatial)) * (2 * reach + 1)) - reach
        return made

    def views(self, spatial: tuple[int, ...]) -> list[Floats]:
        """Unmoved, and moved by `amount` to each side along each axis."""
        reach = self._reach(spatial)
        made = _unchanged(1 + 2 * len(spatial), len(spatial))
        for axis, far in enumerate(reach):
            made[1 + 2 * axis : 3 + 2 * axis, axis, -1] = -far, far
        return list(made)

    def _reach(self, spatial: tuple[int, ...]) -> Floats:
        amounts = _for_axes(self, self.amount, len(spatial))
        whole = [math.floor(a * n) if isinstance(a, float) else a for a, n in zip(amounts, spatial, strict=True)]
        return np.array(whole, np.float64)


@dataclass(frozen=True)
class Crop(Geometric):
    """See a part of the sample in its full size: `scale` is the part's share of the whole (its length, area, volume).

    `aspect` is the part's width by its height, relative to the sample's own; signals and volumes keep theirs (Szegedy
    et al., 2015, with their numbers).
    """

    scale: tuple[float, float] = (0.6, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _require(0 < self.scale[0] <= self.scale[1] <= 1, self, "scale is (least, most), above 0 and up to 1")
        _require(0 < self.aspect[0] <= self.aspect[1], self, "aspect is (least, most), above 0")

    def maps(self, draws: Draws, spatial: tuple[int, ...]) -> Floats:
        rank = len(spatial)
        numbers = draws.uniform(rank + 2)
        low, high = self.scale
        share = (low + (high - low) * numbers[:, rank]) ** (1 / rank)
        sides = np.repeat(share[:, None], rank, 1)
        if rank == 2:
            least, most = map(math.log, self.aspect)
            stretch = np.exp((least + (most - least) * numbers[:, rank + 1]) / 2)
            sides *= np.stack([1 / stretch, stretch], 1)
        sides = np.minimum(sides, 1)
        made = _unchanged(draws.rows, rank)
        axes = np.arange(rank)
        made[:, axes, axes] = sides
        made[:, :-1, -1] = (numbers[:, :rank] - 0.5) * (1 - sides) * np.array(spatial)
        return made


@dataclass(frozen=True)
class Affine(Geometric):
    """Turn, move, scale and shear, in the last two dimensions: images, and each slice of a volume.

    Angles are in degrees; `rotate` and `shear` lie between their negative and themselves, `shift` between minus and
    plus this share of each side, `scale` (a magnification) between its two numbers.
    """

    rotate: float = 0.0
    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        _require(0 <= self.rotate <= 180, self, "rotate is 0 to 180 degrees")
        _require(0 <= self.shift <= 1, self, "shift is 0 to 1")
        _require(0.01 <= self.scale[0] <= self.scale[1] <= 100, self, "scale is (least, most), 0.01 to 100")
        _require(0 <= self.shear < 80, self, "shear is 0 to below 80 degrees")
        _fill(self, self.fill)

    def maps(self, draws: Draws, spatial: tuple[int, ...]) -> Floats:
        rank = len(spatial)
        _require(rank >= 2, self, f"signals have no plane to be turned in; the samples are {spatial}")
        signed = 2 * draws.uniform(5) - 1
        angle, shear = np.deg2rad(self.rotate) * signed[:, 0], np.tan(np.deg2rad(self.shear) * signed[:, 1])
        least, most = map(math.log, self.scale)
        inverse = np.exp(-(least + (most - least) * (signed[:, 2] + 1) / 2))
        cos, sin = np.cos(angle) * inverse, np.sin(angle) * inverse
        made = _unchanged(draws.rows, rank)
        y, x = rank - 2, rank - 1
        made[:, y, y], made[:, y, x] = cos, sin
        made[:, x, y], made[:, x, x] = cos * shear - sin, sin * shear + cos
        made[:, [y, x], -1] = signed[:, 3:] * self.shift * np.array(spatial[-2:])
        return made


@dataclass(frozen=True)
class Rotate(Geometric):
    """Turn by up to `degrees` to either side, in the last two dimensions."""

    degrees: float = 10.0
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        _require(0 <= self.degrees <= 180, self, "degrees are 0 to 180")
        _fill(self, self.fill)

    def maps(self, draws: Draws, spatial: tuple[int, ...]) -> Floats:
        return Affine(rotate=self.degrees).maps(draws, spatial)


# tones


@dataclass(frozen=True)
class Brightness(Tonal):
    """Multiply all values of a sample by a factor from 1 - amount to 1 + amount."""

    amount: float = 0.2

    def __post_init__(self) -> None:
        _require(0 <= self.amount <= 1, self, "amount is 0 to 1")

    def tones(self, draws: Draws, mean: Floats, full: float) -> Floats:
        factor = draws.between(1 - self.amount, 1 + self.amount)[:, 0]
        return np.stack([factor, np.zeros_like(factor), np.zeros_like(factor)], 1)


@dataclass(frozen=True)
class Contrast(Tonal):
    """Multiply the distance of all values from the sample's mean grey by a factor from 1 - amount to 1 + amount."""

    amount: float = 0.2

    def __post_init__(self) -> None:
        _require(0 <= self.amount <= 1, self, "amount is 0 to 1")

    def tones(self, draws: Draws, mean: Floats, full: float) -> Floats:
        factor = draws.between(1 - self.amount, 1 + self.amount)[:, 0]
        return np.stack([factor, np.zeros_like(factor), (1 - factor) * mean], 1)


@dataclass(frozen=True)
class Colour(Tonal):
    """Multiply the distance of all values from the grey of their place by a factor from 1 - amount to 1 + amount."""

    amount: float = 0.3

    def __post_init__(self) -> None:
        _require(0 <= self.amount <= 1, self, "amount is 0 to 1")

    def tones(self, draws: Draws, mean: Floats, full: float) -> Floats:
        factor = draws.between(1 - self.amount, 1 + self.amount)[:, 0]
        return np.stack([factor, 1 - factor, np.zeros_like(factor)], 1)


@dataclass(frozen=True)
class Gain(Tonal):
    """Make signals louder or softer by up to so many decibels; 6 dB are about a factor of 2."""

    decibels: float = 6.0

    def __post_init__(self) -> None:
        _require(0 <= self.decibels <= 60, self, "decibels are 0 to 60")

    def tones(self, draws: Draws, mean: Floats, full: float) -> Floats:
        factor = 10 ** (draws.between(-self.decibels, self.decibels)[:, 0] / 20)
        return np.stack([factor, np.zeros_like(factor), np.zeros_like(factor)], 1)


# noise, holes


@dataclass(frozen=True)
class Noise(Augmentation):
    """Add noise of a standard deviation from 0 to `amount`: of uint8 a share of 255, of floats as it is.

    It is nearly normal: the sum of four uniform numbers.
    """

    amount: float = 0.05

    def __post_init__(self) -> None:
        _require(self.amount >= 0 and math.isfinite(self.amount), self, "amount is not below 0")

    def amplitudes(self, draws: Draws, full: float) -> Floats:
        """(rows,)."""
        return draws.between(0, self.amount * full)[:, 0]


@dataclass(frozen=True)
class Erase(Boxed):
    """Fill a box of a sample with `value` (Zhong et al., 2020).

    `scale` is the box's share of the sample, `aspect` its width by its height relative to the sample's, in images.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.2)
    aspect: tuple[float, float] = (0.5, 2.0)
    value: float = 0.0

    def __post_init__(self) -> None:
        _probability(self, self.p)
        _require(0 < self.scale[0] <= self.scale[1] <= 1, self, "scale is (least, most), above 0 and up to 1")
        _require(0 < self.aspect[0] <= self.aspect[1], self, "aspect is (least, most), above 0")
        _require(math.isfinite(self.value), self, "value is a finite number")

    def boxes(self, draws: Draws, spatial: tuple[int, ...]) -> NDArray[np.int32]:
        rank = len(spatial)
        numbers = draws.uniform(rank + 3)
        share = self.scale[0] + (self.scale[1] - self.scale[0]) * numbers[:, rank]
        least, most = map(math.log, self.aspect)
        stretch = np.exp((least + (most - least) * numbers[:, rank + 1]) / 2)
        boxes = _boxes(share, stretch, numbers[:, :rank], spatial)
        boxes[numbers[:, rank + 2] >= self.p] = 0
        return boxes[:, None]


@dataclass(frozen=True)
class TimeMask(Boxed):
    """Silence up to `masks` stretches of a signal, each up to `share` of it (Park et al., 2019)."""

    share: float = 0.1
    masks: int = 2
    value: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _require(0 < self.share <= 1, self, "share is above 0 and up to 1")
        _require(1 <= self.masks <= 100, self, "masks are 1 to 100")

    def boxes(self, draws: Draws, spatial: tuple[int, ...]) -> NDArray[np.int32]:
        _require(len(spatial) == 1, self, f"only signals have a time; the samples are {spatial}")
        numbers = draws.uniform(2 * self.masks)
        length = np.floor(numbers[:, : self.masks] * (self.share * spatial[0] + 1))
        start = np.floor(numbers[:, self.masks :] * (spatial[0] - length + 1))
        return np.stack([start, start + length], -1).astype(np.int32)[:, :, None]


# mixing


@dataclass(frozen=True)
class Mixup(Augmentation):
    """Blend each sample with another of the batch, and their targets alike (Zhang et al., 2018).

    The share of the one is drawn from the beta distribution of (alpha, alpha).
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _require(0 < self.alpha <= 2, self, "alpha is above 0 and up to 2")

    def shares(self, draws: Draws) -> Floats:
        """(rows,), by Jöhnk's method: u^(1 / alpha) against v^(1 / alpha), drawn until they sum to 1 at most."""
        numbers = draws.uniform(2 * _TRIES).reshape(-1, _TRIES, 2)
        ours, theirs = np.moveaxis(np.log(np.maximum(numbers, 2.0**-53)) / self.alpha, -1, 0)
        both = np.logaddexp(ours, theirs)
        chosen = (both <= 0).argmax(1)[:, None]
        return np.asarray(np.exp(np.take_along_axis(ours - both, chosen, 1))[:, 0])


@dataclass(frozen=True)
class CutMix(Boxed):
    """Paste a box of another sample of the batch; targets are blended by its share (Yun et al., 2019)."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _probability(self, self.p)

    def boxes(self, draws: Draws, spatial: tuple[int, ...]) -> NDArray[np.int32]:
        rank = len(spatial)
        numbers = draws.uniform(rank + 2)
        boxes = _boxes(numbers[:, rank], np.ones(draws.rows), numbers[:, :rank], spatial)
        boxes[numbers[:, rank + 1] >= self.p] = 0
        return boxes[:, None]


Augmentation.vocabulary = {
    step.__name__: step
    for step in (
        *(Flip, Shift, Crop, Rotate, Affine),
        *(Brightness, Contrast, Colour, Gain),
        *(Noise, Erase, TimeMask, Mixup, CutMix),
    )
}


def describe(steps: Sequence[Augmentation]) -> list[dict[str, Any]]:
    """Augmentations as JSON.

    >>> describe([Flip(), Rotate(5)])
    [{'Flip': {'axis': -1, 'p': 0.5}}, {'Rotate': {'degrees': 5.0, 'fill': 'zero'}}]
    """
    return [encode(step) for step in restore([encode(step) for step in steps])]


def restore(description: object) -> tuple[Augmentation, ...]:
    """The augmentations of a description.

    Raises:
        FileError: with the place in the description, what stands there, and what is accepted.

    >>> restore([{"Shift": {"amount": 2}}])
    (Shift(amount=2, fill='zero'),)
    """
    steps: tuple[Augmentation, ...] = decode(description, tuple[Augmentation, ...], "augment")
    return steps


def _require(held: bool, step: Augmentation, rule: str) -> None:
    if not held:
        raise ConvolveError(f"{type(step).__name__}: {rule}. Received: {step}")


def _probability(step: Augmentation, p: float) -> None:
    _require(0 <= p <= 1, step, "p is a probability, 0 to 1")


def _fill(step: Augmentation, fill: str) -> None:
    _require(fill in get_args(Fill), step, f"fill is one of {', '.join(get_args(Fill))}")


def _axis(step: Augmentation, axis: int, rank: int) -> int:
    _require(-axis <= rank, step, f"the samples have {rank} spatial dimension{'s' * (rank != 1)}")
    return rank + axis


def _several(amount: Amount) -> tuple[int | float, ...]:
    return tuple(amount) if isinstance(amount, (tuple, list)) else (amount,)


def _for_axes(step: Augmentation, amount: Amount, rank: int) -> tuple[int | float, ...]:
    amounts = _several(amount)
    _require(len(amounts) in (1, rank), step, f"amount is one number, or one for each of {rank} spatial dimensions")
    return amounts if len(amounts) == rank else amounts * rank


def _unchanged(rows: int, rank: int) -> Floats:
    return np.tile(np.eye(rank + 1), (rows, 1, 1))


def _boxes(share: Floats, stretch: Floats, place: Floats, spatial: tuple[int, ...]) -> NDArray[np.int32]:
    """(rows, rank, 2): boxes of these shares of the whole, images' stretched in width, at these places (0 to 1)."""
    rank = len(spatial)
    sides = np.repeat((share ** (1 / rank))[:, None], rank, 1)
    if rank == 2:
        sides *= np.stack([1 / stretch, stretch], 1)
    size = np.round(np.minimum(sides, 1) * np.array(spatial))
    start = np.floor(place * (np.array(spatial) - size + 1))
    return np.stack([start, start + size], -1).astype(np.int32)
