"""VGG nets: stacks of 3x3 convolutions and a wide classifier."""

from __future__ import annotations

from convolve.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Layer, MaxPool, ReLU, Sequential
from convolve.zoo.parts import IMAGENET, Scaling, preprocessing

FILTERS = (64, 128, 256, 512, 512)
"""Of each stage; max-pooling halves the size behind it."""


def vgg11(
    classes: int = 1000,
    batch_norm: bool = False,
    hidden: int = 4096,
    dropout: float = 0.5,
    normalize: Scaling = True,
) -> Sequential:
    """VGG-11, configuration A (Simonyan and Zisserman, 2015): 132,863,336 parameters at 224x224 with 1000 classes.

    The paper is "Very deep convolutional networks for large-scale image recognition". The classifier, two layers of
    `hidden` units with dropout and the logits, takes the map that the last pooling leaves: 7x7 of an image of 224x224,
    1x1 of one of 32x32, the smallest. `batch_norm` puts one behind each convolution, which keeps its bias, as
    torchvision's does.

    >>> from convolve import Model
    >>> Model(vgg11(classes=10, hidden=512), input_shape=(32, 32, 3)).parameter_count
    9750922
    """
    return _vgg((1, 1, 2, 2, 2), classes, batch_norm, hidden, dropout, normalize)


def vgg13(
    classes: int = 1000,
    batch_norm: bool = False,
    hidden: int = 4096,
    dropout: float = 0.5,
    normalize: Scaling = True,
) -> Sequential:
    """VGG-13, configuration B: 133,047,848 parameters. Source and arguments are those of `vgg11`."""
    return _vgg((2, 2, 2, 2, 2), classes, batch_norm, hidden, dropout, normalize)


def vgg16(
    classes: int = 1000,
    batch_norm: bool = False,
    hidden: int = 4096,
    dropout: float = 0.5,
    normalize: Scaling = True,
) -> Sequential:
    """VGG-16, configuration D: 138,357,544 parameters. Source and arguments are those of `vgg11`."""
    return _vgg((2, 2, 3, 3, 3), classes, batch_norm, hidden, dropout, normalize)


def vgg19(
    classes: int = 1000,
    batch_norm: bool = False,
    hidden: int = 4096,
    dropout: float = 0.5,
    normalize: Scaling = True,
) -> Sequential:
    """VGG-19, configuration E: 143,667,240 parameters. Source and arguments are those of `vgg11`."""
    return _vgg((2, 2, 4, 4, 4), classes, batch_norm, hidden, dropout, normalize)


def _vgg(
    counts: tuple[int, ...], classes: int, batch_norm: bool, hidden: int, dropout: float, normalize: Scaling
) -> Sequential:
    """`counts`: convolutions of each stage."""
    layers: list[Layer] = []
    for count, filters in zip(counts, FILTERS, strict=True):
        for _ in range(count):
            layers += [Conv(filters, 3, padding=1), *([BatchNorm()] if batch_norm else []), ReLU()]
        layers.append(MaxPool(2))
    return Sequential(
        *preprocessing(normalize, IMAGENET),
        *layers,
        *(Flatten(), Dense(hidden), ReLU(), Dropout(dropout)),
        *(Dense(hidden), ReLU(), Dropout(dropout), Dense(classes)),
    )
