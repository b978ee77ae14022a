"""Nets for sound and for volumes: one and three spatial dimensions."""

from __future__ import annotations

from convolve.layers import Dense, GlobalAvgPool, MaxPool, Normalize, Sequential
from convolve.zoo.parts import Scaling, conv_norm_relu, preprocessing

SOUND = Normalize(128.0, 128.0, name="normalize")
"""Sound of 8 bits as WAV files hold it, uint8 with silence at 128, to -1 .. 1."""


LEAST_OF_M5 = 1772
"""Values that a signal has at least for M5."""


def m5_narrow(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """M5 with 32, 64, 128 and 256 filters, which `convolve train` takes: 135,114 parameters with 10 classes."""
    return m5(classes, (32, 64, 128, 256), normalize)


def m5(
    classes: int = 10, filters: tuple[int, int, int, int] = (128, 128, 256, 512), normalize: Scaling = True
) -> Sequential:
    """M5 for raw sound (Dai, Dai, Qu, Li and Das, "Very deep convolutional neural networks for raw waveforms", 2016).

    Four convolutions, the first with 80 taps, with the paper's 128, 128, 256 and 512 filters: 558,090 parameters with
    10 classes. Nothing is padded, as in PyTorch's audio tutorial, which has (32, 32, 64, 64) filters, and biases that
    batch norm takes out again; here there are none. 16,000 samples are a second; it takes at least 1,772.

    Its own `Normalize` takes sound of 8 bits as WAV files hold it, uint8 with silence at 128, to -1 .. 1. Sound that
    comes as floats in that range needs `normalize=False`.
    """
    first, *others = filters
    return Sequential(
        *preprocessing(normalize, SOUND),
        *(*conv_norm_relu(first, 80, stride=4, padding="valid"), MaxPool(4)),
        *(layer for count in others for layer in (*conv_norm_relu(count, 3, padding="valid"), MaxPool(4))),
        *(GlobalAvgPool(), Dense(classes)),
    )


def cnn3d(classes: int = 10, filters: tuple[int, ...] = (16, 32, 64), normalize: Scaling = True) -> Sequential:
    """A small net for volumes, of 3x3x3 convolutions (Ji, Xu, Yang and Yu, "3D convolutional neural networks", 2013).

    Each convolution has batch norm and ReLU and halves the volume by max-pooling; the mean over what is left decides:
    70,426 parameters with 10 classes and one channel.
    """
    return Sequential(
        *preprocessing(normalize),
        *(layer for count in filters for layer in (*conv_norm_relu(count, 3), MaxPool(2))),
        *(GlobalAvgPool(), Dense(classes)),
    )
