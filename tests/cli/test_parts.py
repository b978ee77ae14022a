"""Parts of the command line that need no process: the picture of a run, the choice of a net, statistics."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convolve import zoo
from convolve.cli.recipe import zoo_net
from convolve.layers import Normalize, Sequential
from convolve.view.curves import curves, ticks

SVG = "{http://www.w3.org/2000/svg}"


def _epochs(count: int) -> list[dict[str, float]]:
    names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
    return [{name: 1 / (epoch + k + 2) for k, name in enumerate(names)} for epoch in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 12, 300])
def test_curves_are_a_picture_with_a_title_and_words(count: int) -> None:
    picture = ElementTree.fromstring(curves(_epochs(count), "net <1> & \x00 data"))
    assert picture.find(f"{SVG}title").text == "net <1> & \ufffd data"
    assert picture.attrib["aria-labelledby"].split() == [
        picture.find(f"{SVG}{n}").attrib["id"] for n in ("title", "desc")
    ]
    lines = picture.findall(f"{SVG}polyline")
    assert len(lines) == (4 if count else 0)
    assert all(len(line.attrib["points"].split()) == count for line in lines)
    if count:
        assert "training accuracy from 33.33% to" in picture.find(f"{SVG}desc").text


def test_curves_stay_within_the_picture() -> None:
    picture = ElementTree.fromstring(curves(_epochs(30), "data"))
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    points = [p.split(",") for line in picture.findall(f"{SVG}polyline") for p in line.attrib["points"].split()]
    assert all(0 < float(x) < width and 0 < float(y) < height for x, y in points)


def test_curves_leave_out_what_is_not_finite() -> None:
    epochs = [{"loss": 1.0}, {"loss": math.nan}, {"loss": 0.5}]
    [line] = ElementTree.fromstring(curves(epochs, "data")).findall(f"{SVG}polyline")
    assert len(line.attrib["points"].split()) == 2


@given(low=st.floats(0, 99.8), span=st.floats(1e-6, 1e6))
def test_ticks_are_few_even_and_within(low: float, span: float) -> None:
    found = ticks(low, low + span)
    steps = np.diff(found)
    assert 2 <= len(found) <= 8
    assert np.allclose(steps, steps[0])
    assert found[0] <= low + 1e-9 * abs(low)
    assert found[-1] <= low + span * (1 + 1e-6)


@pytest.mark.parametrize("channels", [1, 3, 40])
def test_floats_are_normalised_and_a_constant_channel_stays_finite(channels: int) -> None:
    x = np.random.default_rng(0).normal(5, 3, (50, 6, 6, channels)).astype(np.float32)
    x[..., 0] *= channels == 1
    net = zoo_net("mlp", x, 4)
    assert isinstance(net, Sequential)
    first = net.layers[0]
    assert isinstance(first, Normalize)
    per_channel = (0, 1, 2) if channels <= 16 else None
    std = x.std(per_channel, dtype=np.float64)
    assert np.allclose(first.mean, x.mean(per_channel, dtype=np.float64))
    assert np.allclose(first.std, np.where(std > 0, std, 1))


@pytest.mark.parametrize(
    ("name", "channels", "scaling"),
    [("digits", 1, zoo.BYTES), ("digits", 3, zoo.BYTES), ("resnet18", 3, zoo.IMAGENET), ("resnet18", 1, zoo.BYTES)],
)
def test_bytes_are_scaled_as_the_net_does_where_the_channels_allow(
    name: str, channels: int, scaling: Normalize
) -> None:
    net = zoo_net(name, np.zeros((2, 32, 32, channels), np.uint8), 4)
    assert isinstance(net, Sequential)
    assert net.layers[0] == scaling
