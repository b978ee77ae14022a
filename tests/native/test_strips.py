"""Two layers computed in strips: the numbers of both apart, bit for bit, whatever the window, the rank and the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import normal

from convolve import AvgPool, Clip, Conv, Layer, MaxPool, Model, ReLU, Residual, Sequential
from convolve.native.kernels.chain import Chain
from convolve.ops import strips
from convolve.ops.strips import Strip
from convolve.window import resolve

CASES: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "depthwise": (Sequential(Conv(40, 1), Clip(0, 6), Conv(40, 3, groups="depthwise"), ReLU()), (19, 17, 6)),
    "stride 2": (Sequential(Conv(72, 1), ReLU(), Conv(72, 3, stride=2, groups="depthwise")), (20, 13, 5)),
    "behind 3x3": (Sequential(Conv(20, 3, stride=2), ReLU(), Conv(20, 5, groups="depthwise")), (31, 30, 3)),
    "narrow groups": (Sequential(Conv(48, 1), Conv(48, 3, groups=12, padding=((2, 0), (0, 1)))), (14, 9, 7)),
    "dilation": (Sequential(Conv(24, 1), ReLU(), Conv(24, 3, dilation=2, groups="depthwise")), (15, 12, 4)),
    "max pool": (Sequential(Conv(36, 3, stride=2), ReLU(), MaxPool(3, stride=2, padding="same")), (41, 38, 3)),
    "average pool": (Sequential(Conv(16, 5), AvgPool(2)), (15, 16, 2)),
    "volume": (Sequential(Conv(24, 1), ReLU(), Conv(24, 3, groups="depthwise")), (9, 7, 6, 5)),
    "volume, pooled": (Sequential(Conv(20, 1), MaxPool(2)), (10, 8, 6, 3)),
}


def chained(model: Model, batch: int) -> list[Any]:
    """The chains in the program of a prediction."""
    program = model.network.prediction(model.network.feeds(batch)).program
    return [call for call in program.calls if isinstance(call.spec, Chain)]


@pytest.fixture(autouse=True)
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "LEAST_BYTES", 0)
    monkeypatch.setattr(strips, "STRIP_BYTES", 8192)


@pytest.mark.parametrize("case", CASES)
def test_strips_give_the_bits_of_both_layers_apart(case: str) -> None:
    """A batch of two is computed layer by layer, and so is what tells the truth."""
    net, shape = CASES[case]
    model = Model(net, input_shape=shape, seed=3)
    x = normal((2, *shape))
    alone = np.concatenate([model.predict(x[i : i + 1]) for i in range(2)])
    assert sum(call.pieces for call in chained(model, 1)) > 1
    assert not chained(model, 2)
    np.testing.assert_array_equal(alone, model.predict(x))


@pytest.mark.parametrize("case", ["stride 2", "behind 3x3", "volume"])
def test_what_is_computed_twice_counts_once(case: str) -> None:
    net, shape = CASES[case]
    model = Model(net, input_shape=shape)
    assert sum(call.flops for call in chained(model, 1)) == 2 * model.summary().multiply_adds


def test_what_others_read_is_not_computed_in_strips() -> None:
    block = Sequential(Conv(24, 3), Residual(Sequential(Conv(24, 3, groups="depthwise"), ReLU())))
    assert not chained(Model(block, input_shape=(12, 12, 3)), 1)
    assert not chained(Model(CASES["max pool"][0], input_shape=(41, 38, 3), exact=True), 3)


def test_small_maps_are_not_computed_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "LEAST_BYTES", 1 << 20)
    net, shape = CASES["depthwise"]
    assert not chained(Model(net, input_shape=shape), 1)


def test_strips_cover_every_line_and_channel_once() -> None:
    window = resolve(3, 2, 1, "same", (31, 10))
    found = strips.strips(window, (31, 10), 16, 12, 40)
    assert [(s.channels, s.lines.start) for s in found[:2]] == [(range(32), 0), (range(32, 40), 0)]
    first = [s for s in found if s.channels.start == 0]
    assert [line for s in first for line in s.lines] == list(range(16))
    assert sum(s.fresh for s in first) == 31
    assert first[1] == Strip(first[1].lines, first[1].between, range(32), len(first[1].between) - 1)
