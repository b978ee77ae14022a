"""Augmentation: each sample is shown a little changed in each epoch. Steps are data, not code.

>>> from convolve import augment
>>> steps = (augment.Flip(), augment.Shift(2), augment.Rotate(10), augment.Erase())
>>> augment.restore(augment.describe(steps)) == steps
True

Whatever the order they are listed in, geometry comes first (all of it as one resampling), then tones, noise, erasing,
and last what mixes samples of a batch. What a sample undergoes depends on (seed, step, its place in the batch, the
augmentation's place in the list) alone: not on threads, and not on whether a run was resumed.
"""

from convolve.augment.pipeline import Pipeline, Views
from convolve.augment.steps import (
    Affine,
    Augmentation,
    Brightness,
    Colour,
    Contrast,
    Crop,
    CutMix,
    Erase,
    Fill,
    Flip,
    Gain,
    Mixup,
    Noise,
    Rotate,
    Shift,
    TimeMask,
    describe,
    restore,
)

__all__ = [
    "Affine",
    "Augmentation",
    "Brightness",
    "Colour",
    "Contrast",
    "Crop",
    "CutMix",
    "Erase",
    "Fill",
    "Flip",
    "Gain",
    "Mixup",
    "Noise",
    "Pipeline",
    "Rotate",
    "Shift",
    "TimeMask",
    "Views",
    "describe",
    "restore",
]
