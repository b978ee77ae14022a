"""Nets for small images, most of them for digits."""

from __future__ import annotations

from convolve.layers import BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, MaxPool, ReLU, Residual, Sequential
from convolve.zoo.parts import Scaling, conv_norm_relu, conv_pool_norm_relu, preprocessing


def mlp(classes: int = 10, hidden: int = 100, normalize: Scaling = True) -> Sequential:
    """The fully-connected net that convolution replaces: W2 max(0, W1 x), no biases; 784-100-10 has 79,400 weights."""
    return Sequential(
        *preprocessing(normalize), Flatten(), Dense(hidden, bias=False), ReLU(), Dense(classes, bias=False)
    )


def lenet5(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """LeNet-5 (LeCun et al., 1998) as it is taught today: ReLU and max-pooling; 61,706 parameters."""
    return Sequential(
        *preprocessing(normalize),
        *(Conv(6, 5), ReLU(), MaxPool(2)),
        *(Conv(16, 5, padding="valid"), ReLU(), MaxPool(2)),
        *(Flatten(), Dense(120), ReLU(), Dense(84), ReLU(), Dense(classes)),
    )


def mnist_cnn(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """The two-convolution net of Keras's and PyTorch's MNIST examples, without dropout; 1,199,882 parameters."""
    return Sequential(
        *preprocessing(normalize),
        *(Conv(32, 3, padding="valid"), ReLU(), Conv(64, 3, padding="valid"), ReLU(), MaxPool(2)),
        *(Flatten(), Dense(128), ReLU(), Dense(classes)),
    )


def digits(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """Three convolutions with batch norm, for digits of any size; 54,778 parameters at 28 x 28."""
    return Sequential(
        *preprocessing(normalize),
        *(Conv(16, 3, bias=False), BatchNorm(), ReLU(), MaxPool(2)),
        *(Conv(32, 3, bias=False), BatchNorm(), ReLU(), MaxPool(2)),
        *(Conv(64, 3, bias=False), BatchNorm(), ReLU(), Flatten(), Dense(classes)),
    )


def glyphs(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """Four convolutions with batch norm, what `convolve train` takes for small images that are easy to tell apart.

    Maps are pooled before they are normalised, and shrink soon: of the same work, a step of `digits` does half. Images
    have at least 24 x 24 pixels.
    """
    return Sequential(
        *preprocessing(normalize),
        *(*conv_pool_norm_relu(16, 5, "valid"), *conv_pool_norm_relu(32, 3)),
        *(*conv_norm_relu(64, 3, padding="valid"), *conv_norm_relu(128, 3, padding="valid"), Flatten(), Dense(classes)),
    )


def small(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """Five convolutions with batch norm, what `convolve train` takes for smaller images that are hard to tell apart."""
    return Sequential(
        *preprocessing(normalize),
        *conv_pool_norm_relu(32, 5, "valid"),
        *(*conv_norm_relu(48, 3), *conv_pool_norm_relu(48, 3)),
        *(*conv_norm_relu(96, 3), *conv_norm_relu(96, 3), GlobalAvgPool(), Dense(classes)),
    )


def thumbnails(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """Seven convolutions with batch norm, what `convolve train` takes for small images that are hard to tell apart.

    Two of them are a residual block (He et al., 2016). Places are kept to the last layer: small images mostly show
    their subject in the middle. Images have at least 24 x 24 pixels.
    """
    return Sequential(
        *preprocessing(normalize),
        *conv_pool_norm_relu(32, 5, "valid"),
        *(*conv_norm_relu(48, 3), *conv_pool_norm_relu(48, 3)),
        *(Residual(*conv_norm_relu(48, 3), Conv(48, 3, bias=False), BatchNorm()), ReLU()),
        *(*conv_norm_relu(96, 3, padding="valid"), *conv_norm_relu(192, 3, padding="valid"), Flatten(), Dense(classes)),
    )
