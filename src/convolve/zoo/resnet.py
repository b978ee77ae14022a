"""Residual nets (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016)."""

from __future__ import annotations

from convolve.layers import BatchNorm, Conv, Dense, GlobalAvgPool, Layer, MaxPool, ReLU, Residual, Sequential
from convolve.zoo.parts import Scaling, preprocessing


def _basic_block(filters: int, stride: int, project: bool, name: str) -> list[Layer]:
    shortcut = None
    if project:
        shortcut = Sequential(Conv(filters, 1, stride=stride, padding=0, bias=False), BatchNorm(), name="shortcut")
    body = (
        *(Conv(filters, 3, stride=stride, padding=1, bias=False), BatchNorm(), ReLU()),
        *(Conv(filters, 3, padding=1, bias=False), BatchNorm()),
    )
    return [Residual(*body, shortcut=shortcut, name=name), ReLU(name=f"{name}_relu")]


def _stages(counts: tuple[int, ...], first: int, channels: int) -> list[Layer]:
    """Stages of basic blocks: each after the first halves the size and doubles the filters."""
    layers: list[Layer] = []
    for stage, count in enumerate(counts):
        filters = first * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            project = stride != 1 or (block == 0 and filters != channels)
            layers += _basic_block(filters, stride, project, f"layer{stage + 1}_{block}")
        channels = filters
    return layers


def _cifar_resnet(depth: int, classes: int, normalize: Scaling) -> Sequential:
    """ResNet for 32x32 images (He et al., 2016, section 4.2), with projection shortcuts (option B)."""
    count = (depth - 2) // 6
    return Sequential(
        *preprocessing(normalize),
        *(Conv(16, 3, padding=1, bias=False), BatchNorm(), ReLU()),
        *_stages((count,) * 3, 16, 16),
        *(GlobalAvgPool(), Dense(classes)),
    )


def _imagenet_resnet(counts: tuple[int, ...], classes: int, normalize: Scaling) -> Sequential:
    """ResNet for 224x224 images (He et al., 2016, table 1), laid out as torchvision's."""
    return Sequential(
        *preprocessing(normalize),
        *(Conv(64, 7, stride=2, padding=3, bias=False), BatchNorm(), ReLU(), MaxPool(3, stride=2, padding=1)),
        *_stages(counts, 64, 64),
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
    return _imagenet_resnet((2, 2, 2, 2), classes, normalize)


def resnet34(classes: int = 1000, normalize: Scaling = True) -> Sequential:
    """ResNet-34 (He et al., 2016): 21,797,672 parameters with 1000 classes, as torchvision's."""
    return _imagenet_resnet((3, 4, 6, 3), classes, normalize)
