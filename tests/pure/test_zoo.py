"""The zoo's nets: parameters as others count them, and what they begin with."""

from __future__ import annotations

import math

import pytest

from convolve import Layer, Net, Normalize, Sequential, zoo
from convolve.graph import leaf
from convolve.layers import Construction, Scope

Shape = tuple[int, ...]


def parameters_of(net: Layer, input_shape: Shape) -> int:
    """Counted from what the layers ask for: no array is made."""
    construction = Construction(training=False)
    Scope(construction).build_net(net, leaf("input", "x", (1, *input_shape)))
    return sum(math.prod(spec.shape) for spec in construction.parameters.values())


BIASES_BEFORE_NORM = 32 + 32 + 64 + 64
IMAGE = (224, 224, 3)
PUBLISHED = {
    # what: net, input, parameters; torchvision's where nothing else is said
    "resnet18": (zoo.resnet18(), IMAGE, 11_689_512),
    "resnet34": (zoo.resnet34(), IMAGE, 21_797_672),
    "resnet50": (zoo.resnet50(), IMAGE, 25_557_032),
    "resnet101": (zoo.resnet101(), IMAGE, 44_549_160),
    "vgg11": (zoo.vgg11(), IMAGE, 132_863_336),
    "vgg13": (zoo.vgg13(), IMAGE, 133_047_848),
    "vgg16": (zoo.vgg16(), IMAGE, 138_357_544),
    "vgg19": (zoo.vgg19(), IMAGE, 143_667_240),
    "vgg11_bn": (zoo.vgg11(batch_norm=True), IMAGE, 132_868_840),
    "vgg16_bn": (zoo.vgg16(batch_norm=True), IMAGE, 138_365_992),
    "mobilenet_v2": (zoo.mobilenet_v2(), IMAGE, 3_504_872),
    "mobilenet_v2, half as wide, tensorflow/models": (zoo.mobilenet_v2(width=0.5), IMAGE, 1_968_680),
    "squeezenet1_1": (zoo.squeezenet(), IMAGE, 1_235_496),
    "m5, PyTorch's audio tutorial": (zoo.m5(35, (32, 32, 64, 64)), (8000, 1), 26_915 - BIASES_BEFORE_NORM),
    "unet, github.com/milesial/Pytorch-UNet": (zoo.unet(1, filters=64, depth=4), (64, 64, 3), 31_037_633),
}


@pytest.mark.parametrize("what", PUBLISHED)
def test_parameters_are_the_published_ones(what: str) -> None:
    net, input_shape, count = PUBLISHED[what]
    assert parameters_of(net, input_shape) == count


def layers_of(net: Layer) -> list[Layer | None]:
    if isinstance(net, Net):
        return [symbol.layer for symbol in net.order()[1:]]
    assert isinstance(net, Sequential)
    return list(net.layers)


@pytest.mark.parametrize("name", zoo.NETS)
def test_nets_begin_with_the_scaling_that_is_asked_for(name: str) -> None:
    make = zoo.by_name(name).make
    own, *layers = layers_of(make(classes=3))
    assert isinstance(own, Normalize)
    other = Normalize((1.0, 2.0), 3.0, name="other")
    assert layers_of(make(classes=3, normalize=other)) == [other, *layers]
    assert layers_of(make(classes=3, normalize=False)) == layers
