"""An autoencoder: a sample through a narrow place, and back."""

from __future__ import annotations

from convolve.layers import Conv, ConvTranspose, MaxPool, Sequential
from convolve.zoo.parts import Scaling, conv_norm_relu, preprocessing


def autoencoder(
    classes: int = 1, filters: int = 16, depth: int = 2, narrow: int = 4, normalize: Scaling = True
) -> Sequential:
    """A convolutional autoencoder (Masci et al., 2011) with batch norm and max-pooling.

    x (batch, *spatial, channels) -> (batch, *spatial, classes), at any rank; `classes` are the channels to give back.
    `depth` times the size is halved and the filters, at first `filters`, are doubled; `narrow` channels at the least
    size are all that the way back knows. The sizes must be multiples of 2 ** depth.

    >>> from convolve import Model
    >>> Model(autoencoder(classes=3, filters=4), input_shape=(16, 12, 3)).output_shape
    (16, 12, 3)
    """
    down = [layer for level in range(depth) for layer in (*conv_norm_relu(filters * 2**level, 3), MaxPool(2))]
    up = [
        layer
        for level in reversed(range(depth))
        for layer in (ConvTranspose(filters * 2**level, 2, stride=2), *conv_norm_relu(filters * 2**level, 3))
    ]
    return Sequential(*preprocessing(normalize), *down, Conv(narrow, 1, name="code"), *up, Conv(classes, 1))
