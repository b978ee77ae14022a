"""SqueezeNet: few filters see many, many see few."""

from __future__ import annotations

from convolve.layers import Conv, Dropout, GlobalAvgPool, Layer, MaxPool, Parallel, ReLU, Sequential
from convolve.zoo.parts import IMAGENET, Scaling, preprocessing


def squeezenet(classes: int = 1000, dropout: float = 0.5, normalize: Scaling = True) -> Sequential:
    """SqueezeNet in version 1.1 (Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016).

    1,235,496 parameters with 1000 classes, as torchvision's `squeezenet1_1`. Version 1.1 is the authors' own: it takes
    2.4 times less computation than the paper's 1.0. The classifier is a convolution: what it sees is averaged.
    """
    return Sequential(
        *preprocessing(normalize, IMAGENET),
        *(Conv(64, 3, stride=2, padding="valid"), ReLU(), _pool()),
        *(_fire(16, 64, "fire2"), _fire(16, 64, "fire3"), _pool()),
        *(_fire(32, 128, "fire4"), _fire(32, 128, "fire5"), _pool()),
        *(_fire(48, 192, "fire6"), _fire(48, 192, "fire7"), _fire(64, 256, "fire8"), _fire(64, 256, "fire9")),
        *(Dropout(dropout), Conv(classes, 1), ReLU(), GlobalAvgPool()),
    )


def _pool() -> MaxPool:
    return MaxPool(3, stride=2, ceil_mode=True)


def _fire(squeezed: int, expanded: int, name: str) -> Layer:
    """`squeezed` filters of 1x1, whose maps `expanded` filters of 1x1 and as many of 3x3 see."""
    return Sequential(
        *(Conv(squeezed, 1, name="squeeze"), ReLU()),
        Parallel(
            Sequential(Conv(expanded, 1), ReLU(), name="expand1"),
            Sequential(Conv(expanded, 3, padding=1), ReLU(), name="expand3"),
            name="expand",
        ),
        name=name,
    )
