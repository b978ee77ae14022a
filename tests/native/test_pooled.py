"""Max-pools inside Winograd's tiles: the bits of both layers apart, whatever the rank, the size and the epilogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import normal

from convolve import BatchNorm, Conv, Layer, MaxPool, Model, ReLU, Residual, Sequential, Tanh
from convolve.ops import convolution
from convolve.ops.winograd import Tiling
from convolve.window import Window

CASES: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "even": (Sequential(Conv(24, 3), ReLU(), MaxPool(2)), (16, 12, 8)),
    "odd": (Sequential(Conv(20, 3), BatchNorm(), Tanh(), MaxPool(2)), (15, 9, 8)),
    "a last tile without a window": (Sequential(Conv(8, 3), MaxPool(2)), (9, 5, 8)),
    "residual addition": (Sequential(Conv(12, 3), Residual(Conv(12, 3)), MaxPool(2)), (11, 14, 8)),
    "no padding": (Sequential(Conv(16, 3, padding="valid"), MaxPool(2), Conv(9, 3), ReLU(), MaxPool(2)), (19, 20, 8)),
    "signal": (Sequential(Conv(16, 3), ReLU(), MaxPool(2)), (37, 8)),
    "lines alone": (Sequential(Conv(16, (5, 3)), ReLU(), MaxPool((1, 2))), (7, 22, 8)),
    "volume": (Sequential(Conv(16, 3), ReLU(), MaxPool((1, 2, 2))), (3, 9, 11, 8)),
}


@pytest.fixture(params=[2, 4])
def tiles(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every convolution of three taps a dimension uses tiles of so many outputs."""

    def product(window: Window, lo: Any, images: int, size: Any, *_: Any) -> Tiling:
        dims = 2 if window.kernel[-2:] == (3, 3) else 1
        return Tiling(request.param, dims, window.kernel, tuple(lo), tuple(size), images)

    monkeypatch.setattr(convolution, "product_tiling", product)
    return int(request.param)


def pooled(model: Model, batch: int) -> list[str]:
    """How the calls of a prediction that pool inside tiles are computed."""
    program = model.network.prediction(model.network.feeds(batch)).program
    return [call.algorithm for call in program.calls if getattr(call.spec, "pool", 1) > 1]


@pytest.mark.parametrize("case", CASES)
def test_pools_in_tiles_give_the_bits_of_both_layers_apart(
    tiles: int, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where infinities become NaN and spread over their tiles."""
    net, shape = CASES[case]
    x = normal((2, *shape))
    x[1, ..., 2:4, 3:] = 3e38
    model = Model(net, input_shape=shape, seed=3)
    assert all(how.endswith(", max pool") for how in pooled(model, 2))
    found = model.predict(x)
    monkeypatch.setattr(Tiling, "holds", lambda *_: False)
    apart = Model(net, input_shape=shape, seed=3)
    assert not pooled(apart, 2)
    np.testing.assert_array_equal(found, apart.predict(x))
    assert np.isnan(found).any()
    assert not np.isnan(found).all()


def test_explain_shows_a_pool_in_tiles(tiles: int) -> None:
    model = Model(CASES["even"][0], input_shape=CASES["even"][1])
    [how] = pooled(model, 1)
    [row] = [row for row in model.explain().rows if row.kernel == "Product"]
    assert row.algorithm in how
    assert f"winograd {tiles}x{tiles}" in row.algorithm


@pytest.mark.parametrize(
    "pool",
    [MaxPool(2, padding="same"), MaxPool(2, stride=1), MaxPool(3), MaxPool((2, 1)), MaxPool(2, ceil_mode=True)],
    ids=["padded", "overlapping", "wider than a pair", "along one dimension", "beyond the map"],
)
def test_windows_that_leave_a_tile_or_the_map_are_pooled_apart(tiles: int, pool: Layer) -> None:
    assert not pooled(Model(Sequential(Conv(8, 3), ReLU(), pool), input_shape=(15, 15, 8)), 1)


def test_maps_that_others_need_are_pooled_apart(tiles: int) -> None:
    """A net computed as it is defined, and every value of a trace, have no tiles."""
    net, shape = CASES["even"]
    model, x = Model(net, input_shape=shape, seed=3), normal((1, *shape))
    assert model.trace(x)["relu1"].shape == (1, 16, 12, 24)
    assert not pooled(Model(net, input_shape=shape, exact=True), 1)
