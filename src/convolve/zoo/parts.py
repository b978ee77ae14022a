"""What several nets of the zoo are made of."""

from __future__ import annotations

from convolve.layers import BatchNorm, Conv, Layer, MaxPool, Normalize, ReLU

Scaling = bool | Normalize
"""Whether a net begins with its own `Normalize`, or the one that it shall begin with."""
BYTES = Normalize(0.0, 255.0, name="normalize")
"""uint8 to 0 .. 1."""
IMAGENET = Normalize((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), name="normalize")
"""uint8 of red, green and blue to mean 0 and standard deviation 1, each by its own over ImageNet's training images."""


def preprocessing(normalize: Scaling, own: Normalize = BYTES) -> tuple[Layer, ...]:
    """What a net begins with: its own normalisation, another, or none."""
    if isinstance(normalize, Normalize):
        return (normalize,)
    return (own,) if normalize else ()


def conv_norm_relu(filters: int, kernel_size: int, stride: int = 1, padding: str | int = "same") -> tuple[Layer, ...]:
    """Convolution, batch norm, ReLU. The norm's shift is the convolution's bias."""
    return (Conv(filters, kernel_size, stride, padding, bias=False), BatchNorm(), ReLU())


def conv_pool_norm_relu(filters: int, kernel_size: int, padding: str | int = "same") -> tuple[Layer, ...]:
    """The same with max-pooling before the norm, which then has a quarter of an image's work."""
    convolution, *others = conv_norm_relu(filters, kernel_size, padding=padding)
    return (convolution, MaxPool(2), *others)
