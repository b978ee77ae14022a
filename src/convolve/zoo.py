"""Nets by name, each with its source. They take images as people have them: uint8, scaled by their own Normalize.

>>> from convolve import Model, zoo
>>> Model(zoo.mlp(), input_shape=(28, 28, 1)).parameter_count
79400
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convolve.errors import ConvolveError
from convolve.graph import Shape
from convolve.layers import (
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Normalize,
    ReLU,
    Residual,
    Sequential,
)


def _net(normalize: bool, *layers: Layer) -> Sequential:
    return Sequential(*([Normalize(0.0, 255.0, name="normalize")] if normalize else []), *layers)


def mlp(classes: int = 10, hidden: int = 100, normalize: bool = True) -> Sequential:
    """The fully-connected net that convolution replaces: W2 max(0, W1 x), no biases; 784-100-10 has 79,400 weights."""
    return _net(normalize, Flatten(), Dense(hidden, bias=False), ReLU(), Dense(classes, bias=False))


def lenet5(classes: int = 10, normalize: bool = True) -> Sequential:
    """LeNet-5 (LeCun et al., 1998) as it is taught today: ReLU and max-pooling; 61,706 parameters."""
    return _net(
        normalize,
        *(Conv(6, 5), ReLU(), MaxPool(2)),
        *(Conv(16, 5, padding="valid"), ReLU(), MaxPool(2)),
        *(Flatten(), Dense(120), ReLU(), Dense(84), ReLU(), Dense(classes)),
    )


def mnist_cnn(classes: int = 10, normalize: bool = True) -> Sequential:
    """The two-convolution net of Keras's and PyTorch's MNIST examples, without dropout; 1,199,882 parameters."""
    return _net(
        normalize,
        *(Conv(32, 3, padding="valid"), ReLU(), Conv(64, 3, padding="valid"), ReLU(), MaxPool(2)),
        *(Flatten(), Dense(128), ReLU(), Dense(classes)),
    )


def digits(classes: int = 10, normalize: bool = True) -> Sequential:
    """Three convolutions with batch norm, what `convolve train` takes: above 99.2 % on MNIST within a minute."""
    return _net(
        normalize,
        *(Conv(16, 3, bias=False), BatchNorm(), ReLU(), MaxPool(2)),
        *(Conv(32, 3, bias=False), BatchNorm(), ReLU(), MaxPool(2)),
        *(Conv(64, 3, bias=False), BatchNorm(), ReLU(), Flatten(), Dense(classes)),
    )


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


def _cifar_resnet(depth: int, classes: int, normalize: bool) -> Sequential:
    """ResNet for 32x32 images (He et al., 2016, section 4.2), with projection shortcuts (option B)."""
    count = (depth - 2) // 6
    return _net(
        normalize,
        *(Conv(16, 3, padding=1, bias=False), BatchNorm(), ReLU()),
        *_stages((count,) * 3, 16, 16),
        *(GlobalAvgPool(), Dense(classes)),
    )


def _imagenet_resnet(counts: tuple[int, ...], classes: int, normalize: bool) -> Sequential:
    """ResNet for 224x224 images (He et al., 2016, table 1), laid out as torchvision's."""
    return _net(
        normalize,
        *(Conv(64, 7, stride=2, padding=3, bias=False), BatchNorm(), ReLU(), MaxPool(3, stride=2, padding=1)),
        *_stages(counts, 64, 64),
        *(GlobalAvgPool(), Dense(classes)),
    )


def resnet20(classes: int = 10, normalize: bool = True) -> Sequential:
    """ResNet-20 for CIFAR (He et al., 2016)."""
    return _cifar_resnet(20, classes, normalize)


def resnet32(classes: int = 10, normalize: bool = True) -> Sequential:
    """ResNet-32 for CIFAR (He et al., 2016)."""
    return _cifar_resnet(32, classes, normalize)


def resnet56(classes: int = 10, normalize: bool = True) -> Sequential:
    """ResNet-56 for CIFAR (He et al., 2016)."""
    return _cifar_resnet(56, classes, normalize)


def resnet18(classes: int = 1000, normalize: bool = True) -> Sequential:
    """ResNet-18 (He et al., 2016): 11,689,512 parameters with 1000 classes, as torchvision's."""
    return _imagenet_resnet((2, 2, 2, 2), classes, normalize)


def resnet34(classes: int = 1000, normalize: bool = True) -> Sequential:
    """ResNet-34 (He et al., 2016): 21,797,672 parameters with 1000 classes, as torchvision's."""
    return _imagenet_resnet((3, 4, 6, 3), classes, normalize)


@dataclass(frozen=True)
class Entry:
    """A net's maker, and the input it was made for."""

    make: Callable[..., Sequential]
    input_shape: Shape


NETS: dict[str, Entry] = {
    "mlp": Entry(mlp, (28, 28, 1)),
    "lenet5": Entry(lenet5, (28, 28, 1)),
    "mnist_cnn": Entry(mnist_cnn, (28, 28, 1)),
    "digits": Entry(digits, (28, 28, 1)),
    "resnet20": Entry(resnet20, (32, 32, 3)),
    "resnet32": Entry(resnet32, (32, 32, 3)),
    "resnet56": Entry(resnet56, (32, 32, 3)),
    "resnet18": Entry(resnet18, (224, 224, 3)),
    "resnet34": Entry(resnet34, (224, 224, 3)),
}


def by_name(name: str) -> Entry:
    """A net of the zoo.

    Raises:
        ConvolveError: there is none of that name; the message lists them.
    """
    if name not in NETS:
        raise ConvolveError(f"no net is named {name!r}; there are {', '.join(NETS)}")
    return NETS[name]
