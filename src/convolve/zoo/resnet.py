"""Residual nets (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016)."""

from __future__ import annotations

from collections.abc import Callable

from convolve.layers import BatchNorm, Conv, Dense, GlobalAvgPool, Layer, MaxPool, ReLU, Residual, Sequential
from convolve.zoo.parts import IMAGENET, Scaling, preprocessing


def _conv_norm(filters: int, kernel_size: int, stride: int = 1) -> tuple[Layer, ...]:
    return (Conv(filters, kernel_size, stride, kernel_size // 2, bias=False), BatchNorm())


def _basic(filters: int, stride: int) -> tuple[Layer, ...]:
    """The paper's figure 5, left."""
    return (*_conv_norm(filters, 3, stride), ReLU(), *_conv_norm(filters, 3))


def _bottleneck(filters: int, stride: int) -> tuple[Layer, ...]:
    """The paper's figure 5, right, with the stride at the 3x3 convolution."""
    inside = filters // 4
    return (*_conv_norm(inside, 1), ReLU(), *_conv_norm(inside, 3, stride), ReLU(), *_conv_norm(filters, 1))


Body = Callable[[int, int], tuple[Layer, ...]]
"""What is beside the shortcut of a block, from its filters and its stride."""


def _stages(body: Body, counts: tuple[int, ...], first: int, channels: int) -> list[Layer]:
    """Stages of blocks: each after the first halves the size and doubles the `first` stage's filters."""
    layers: list[Layer] = []
    for stage, count in enumerate(counts):
        filters = first * 2**stage
        for block in range(count):
            stride, name = 2 if stage and not block else 1, f"layer{stage + 1}_{block}"
            projected = stride != 1 or filters != channels
            shortcut = Sequential(*_conv_norm(filters, 1, stride), name="shortcut") if projected else None
            layers += [Residual(*body(filters, stride), shortcut=shortcut, name=name), ReLU(name=f"{name}_relu")]
            channels = filters
    return layers


def _cifar_resnet(depth: int, classes: int, normalize: Scaling) -> Sequential:
    """ResNet for 32x32 images (section 4.2), with projection shortcuts (option B)."""
    count = (depth - 2) // 6
    return Sequential(
        *preprocessing(normalize),
        *(*_conv_norm(16, 3), ReLU()),
        *_stages(_basic, (count,) * 3, 16, 16),
        *(GlobalAvgPool(), Dense(classes)),
    )


def _imagenet_resnet(body: Body, counts: tuple[int, ...], first: int, classes: int, normalize: Scaling) -> Sequential:
    """ResNet for 224x224 images (table 1), laid out as torchvision's."""
    return Sequential(
        *preprocessing(normalize, IMAGENET),
        *(*_conv_norm(64, 7, stride=2), ReLU(), MaxPool(3, stride=2, padding=1)),
        *_stages(body, counts, first, 64),
        *(GlobalAvgPool(), Dense(classes)),
    )


def resnet20(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """ResNet-20 for CIFAR (He et al., 2016)."""
    return _cifar_resnet(20, classes, normalize)


def resnet32(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """ResNet-32 for CIFAR (He et al., 2016)."""
    return _cifar_resnet(32, classes, normalize)


def resnet56(classes: int = 10, normalize: Scaling = True) -> Sequential:
    """ResNet-56 for CIFAR (He et al., 2016)."""
    return _cifar_resnet(56, classes, normalize)


def resnet18(classes: int = 1000, normalize: Scaling = True) -> Sequential:
    """ResNet-18 (He et al., 2016): 11,689,512 parameters with 1000 classes, as torchvision's."""
    return _imagenet_resnet(_basic, (2, 2, 2, 2), 64, classes, normalize)


def resnet34(classes: int = 1000, normalize: Scaling = True) -> Sequential:
    """ResNet-34 (He et al., 2016): 21,797,672 parameters with 1000 classes, as torchvision's."""
    return _imagenet_resnet(_basic, (3, 4, 6, 3), 64, classes, normalize)


def resnet50(classes: int = 1000, normalize: Scaling = True) -> Sequential:
    """ResNet-50 (He et al., 2016) in version 1.5: 25,557,032 parameters with 1000 classes, as torchvision's.

    Bottleneck blocks have their stride at the 3x3 convolution (version 1.5, torchvision's and NVIDIA's), where the
    paper has it at the first 1x1.
    """
    return _imagenet_resnet(_bottleneck, (3, 4, 6, 3), 256, classes, normalize)


def resnet101(classes: int = 1000, normalize: Scaling = True) -> Sequential:
    """ResNet-101 (He et al., 2016) in version 1.5, as `resnet50`: 44,549,160 parameters with 1000 classes."""
    return _imagenet_resnet(_bottleneck, (3, 4, 23, 3), 256, classes, normalize)
