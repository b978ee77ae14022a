"""Nets by name, each with its source. They take images as people have them: uint8, scaled by their own Normalize.

Every maker takes `classes` and `normalize`: True for the net's own `Normalize`, another `Normalize` instead of it, or
False where the data come scaled.

>>> from convolve import Model, zoo
>>> Model(zoo.mlp(), input_shape=(28, 28, 1)).parameter_count
79400
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convolve.errors import ConvolveError
from convolve.graph import Shape
from convolve.layers import Layer
from convolve.zoo.autoencoder import autoencoder
from convolve.zoo.mobilenet import mobilenet_v2
from convolve.zoo.parts import BYTES, IMAGENET
from convolve.zoo.resnet import resnet18, resnet20, resnet32, resnet34, resnet50, resnet56, resnet101
from convolve.zoo.signals import LEAST_OF_M5, cnn3d, m5, m5_narrow
from convolve.zoo.small import digits, glyphs, lenet5, mlp, mnist_cnn, small, thumbnails
from convolve.zoo.squeezenet import squeezenet
from convolve.zoo.unet import unet
from convolve.zoo.vgg import vgg11, vgg13, vgg16, vgg19

__all__ = [
    "BYTES",
    "IMAGENET",
    "LEAST_OF_M5",
    "NETS",
    "Entry",
    "autoencoder",
    "by_name",
    "cnn3d",
    "digits",
    "glyphs",
    "lenet5",
    "m5",
    "m5_narrow",
    "mlp",
    "mnist_cnn",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet50",
    "resnet56",
    "resnet101",
    "small",
    "squeezenet",
    "thumbnails",
    "unet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]


@dataclass(frozen=True)
class Entry:
    """A net's maker, and the input it was made for."""

    make: Callable[..., Layer]
    input_shape: Shape


NETS: dict[str, Entry] = {
    "mlp": Entry(mlp, (28, 28, 1)),
    "lenet5": Entry(lenet5, (28, 28, 1)),
    "mnist_cnn": Entry(mnist_cnn, (28, 28, 1)),
    "digits": Entry(digits, (28, 28, 1)),
    "glyphs": Entry(glyphs, (28, 28, 1)),
    "small": Entry(small, (28, 28, 1)),
    "thumbnails": Entry(thumbnails, (28, 28, 1)),
    "resnet20": Entry(resnet20, (32, 32, 3)),
    "resnet32": Entry(resnet32, (32, 32, 3)),
    "resnet56": Entry(resnet56, (32, 32, 3)),
    "resnet18": Entry(resnet18, (224, 224, 3)),
    "resnet34": Entry(resnet34, (224, 224, 3)),
    "resnet50": Entry(resnet50, (224, 224, 3)),
    "resnet101": Entry(resnet101, (224, 224, 3)),
    "vgg11": Entry(vgg11, (224, 224, 3)),
    "vgg13": Entry(vgg13, (224, 224, 3)),
    "vgg16": Entry(vgg16, (224, 224, 3)),
    "vgg19": Entry(vgg19, (224, 224, 3)),
    "squeezenet": Entry(squeezenet, (224, 224, 3)),
    "mobilenet_v2": Entry(mobilenet_v2, (224, 224, 3)),
    "m5": Entry(m5, (16000, 1)),
    "m5_narrow": Entry(m5_narrow, (8000, 1)),
    "cnn3d": Entry(cnn3d, (24, 24, 24, 1)),
    "unet": Entry(unet, (128, 128, 3)),
    "autoencoder": Entry(autoencoder, (28, 28, 1)),
}


def by_name(name: str) -> Entry:
    """A net of the zoo.

    Raises:
        ConvolveError: there is none of that name; the message lists them.
    """
    if name not in NETS:
        raise ConvolveError(f"no net is named {name!r}; there are {', '.join(NETS)}")
    return NETS[name]
