"""How exact Winograd's tiles are, with weights of chance and with trained ones, and how far a NaN reaches.

The bounds are those that docs/architecture.md promises; u is half a unit in the last place of float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from helpers import Array, Machine, normal, wide

from convolve import Conv, Dense, Flatten, MaxPool, Model, ReLU, Sequential, datasets, optim
from convolve.graph import Graph, Value, apply, evaluate, leaf
from convolve.ops import convolution, winograd
from convolve.ops.convolution import Convolution, FilterGradientOp, InputGradient
from convolve.ops.winograd import Tiling
from convolve.window import Window, resolve

U = 2.0**-24
PRODUCT = {(2, 3): 1.0, (4, 3): 3.0, (2, 5): 2.0}
"""By outputs and taps of a tile: largest error of a product over u * max |x| * largest sum of absolute weights."""
FILTER_GRADIENT = {(2, 3): 3.0, (4, 3): 3.0, (2, 5): 3.0}
"""Largest error of a filter gradient over u * max |x| * the largest sum of absolute gradients that a filter gets."""


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes every convolution use tiles of so many outputs."""

    def use(outputs: int) -> None:
        def product(window: Window, lo: Any, images: int, size: Any, *_: Any) -> Tiling:
            return Tiling(outputs, window.rank, window.kernel, tuple(lo), tuple(size), images)

        def gradient(window: Window, images: int, size: Any, *_: Any) -> Tiling:
            return product(window, [lo for lo, _ in window.pads], images, size)

        monkeypatch.setattr(convolution, "product_tiling", product)
        monkeypatch.setattr(convolution, "gradient_tiling", gradient)

    return use


@cache
def trained(taps: int) -> tuple[Array, Array]:
    """What the second convolution of a small net sees of digits, and its filters, after some steps of training."""
    data = datasets.load("mnist")
    x = data.x_train[:256].reshape(-1, 28, 28, 1).astype(np.float32) / 255
    net = Sequential(Conv(16, 3), ReLU(), MaxPool(2), Conv(24, taps), ReLU(), MaxPool(2), Flatten(), Dense(10))
    model = Model(net, input_shape=(28, 28, 1), seed=0)
    before = model.evaluate(x, data.y_train[:256])["loss"]
    model.fit(x, data.y_train[:256], epochs=5, batch_size=32, optimizer=optim.SGD(0.05, momentum=0.9), seed=0)
    assert model.evaluate(x, data.y_train[:256])["loss"] < before / 2
    return model.trace(x[:4])["max_pool1"], model.parameters["conv2.weight"]


def of_chance(channels: int, taps: int) -> tuple[Array, Array]:
    """Images with values around one and filters with He's variance."""
    weights = normal((24, taps, taps, channels), 1) * (2 / (taps * taps * channels)) ** 0.5
    return normal((2, 13, 15, channels)) + 1, weights


SOURCES = {
    "16 channels": lambda taps: of_chance(16, taps),
    "300 channels": lambda taps: of_chance(300, taps),
    "trained": trained,
}


def error(value: Value, feeds: dict[str, Array]) -> float:
    """The largest difference of the kernels' numbers from the definition in float64."""
    [true] = evaluate([value], wide(feeds))
    machine = Machine(Graph({"y": value}), feeds)
    assert any("winograd" in call.algorithm for call in machine.program.calls)
    return float(np.abs(machine.run()["y"] - true).max())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("outputs", "taps"), PRODUCT)
def test_products_are_as_exact_as_promised(tiles: Any, source: str, outputs: int, taps: int) -> None:
    """A convolution, and the gradient of its input."""
    x, w = SOURCES[source](taps)
    tiles(outputs)
    window = resolve(taps, 1, 1, "same", x.shape[1:-1])
    feeds = {"x": x, "w": w}
    y = apply(Convolution(window), leaf("input", "x", x.shape), leaf("parameter", "w", w.shape))
    assert error(y, feeds) <= PRODUCT[outputs, taps] * U * np.abs(x).max() * np.abs(w).sum((1, 2, 3)).max()
    dy = np.maximum(normal((*x.shape[:-1], len(w)), 2), 0)
    dx = apply(InputGradient(window, x.shape[1:-1]), leaf("input", "dy", dy.shape), leaf("parameter", "w", w.shape))
    bound = PRODUCT[outputs, taps] * U * np.abs(dy).max() * np.abs(w).sum((0, 1, 2)).max()
    assert error(dx, {"dy": dy, "w": w}) <= bound


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("outputs", "taps"), FILTER_GRADIENT)
def test_filter_gradients_are_as_exact_as_promised(tiles: Any, source: str, outputs: int, taps: int) -> None:
    x, w = SOURCES[source](taps)
    tiles(outputs)
    dy = np.maximum(normal((*x.shape[:-1], len(w)), 2), 0)
    window = resolve(taps, 1, 1, "same", x.shape[1:-1])
    dw = apply(FilterGradientOp(window), leaf("input", "x", x.shape), leaf("input", "dy", dy.shape))
    bound = FILTER_GRADIENT[outputs, taps] * U * np.abs(x).max() * np.abs(dy).sum((0, 1, 2)).max()
    assert error(dw, {"x": x, "dy": dy}) <= bound


@pytest.mark.parametrize(("outputs", "taps"), PRODUCT)
def test_nan_spreads_over_the_tiles_that_see_it_and_no_further(tiles: Any, outputs: int, taps: int) -> None:
    tiles(outputs)
    x, w, margin = normal((2, 16, 16, 8)), normal((8, taps, taps, 8), 1), taps // 2
    window = resolve(taps, 1, 1, "same", (16, 16))
    y = apply(Convolution(window), leaf("input", "x", x.shape), leaf("parameter", "w", w.shape))
    clean = Machine(Graph({"y": y}), {"x": x, "w": w}).run()["y"]
    row, column = 5, 10
    x[0, row, column, 3] = np.nan
    found = Machine(Graph({"y": y}), {"x": x, "w": w}).run()["y"]
    # A tile at position t sees the input from t - margin to t + outputs - 1 + margin.
    tile = np.arange(16) // outputs * outputs
    seen, near = np.zeros((2, *y.shape), bool)
    seen[0, (tile - margin <= row) & (row < tile + outputs + margin)] = True
    seen[:, :, (tile - margin > column) | (column >= tile + outputs + margin)] = False
    near[0, row - margin : row + margin + 1, column - margin : column + margin + 1] = True
    assert seen.sum() < seen[0].size
    assert np.isnan(found[near]).all()
    assert not np.isnan(found[~seen]).any()
    np.testing.assert_array_equal(found[~seen], clean[~seen])


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((13, 16, 8), 3), ((11, 14, 150), 3), ((3, 8, 9, 50), 3), ((2, 30, 40), (2, 3))],
    ids=["one chunk", "two chunks", "a chunk across leads", "lines alone"],
)
def test_filters_transformed_where_they_are_needed_give_the_same_bits(
    shape: tuple[int, ...], kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few tiles share a filter in a small image, many in a batch."""

    def product(window: Window, lo: Any, images: int, size: Any, *_: Any) -> Tiling:
        return Tiling(4, 2 if window.kernel[-2:] == (3, 3) else 1, window.kernel, tuple(lo), tuple(size), images)

    def ways(batch: int) -> list[bool]:
        program = model.network.prediction(model.network.feeds(batch)).program
        return ["transformed there" in call.algorithm for call in program.calls if "winograd" in call.algorithm]

    monkeypatch.setattr(convolution, "product_tiling", product)
    model = Model(Sequential(Conv(150, kernel), ReLU()), input_shape=shape, seed=1)
    x = normal((8, *shape))
    assert ways(1) == [True]
    assert ways(8) == [False]
    np.testing.assert_array_equal(np.concatenate([model.predict(x[i : i + 1]) for i in range(8)]), model.predict(x))


def test_training_steps_transform_filters_where_they_are_needed_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large filters of small maps, in several blocks of tiles and with a residual addition; back as well."""
    x, w, z = normal((20, 7, 7, 140)), normal((150, 3, 3, 140), 1), normal((20, 7, 7, 150), 2)
    window = resolve(3, 1, 1, "same", (7, 7))
    weight, seen, added = leaf("parameter", "w", w.shape), leaf("input", "x", x.shape), leaf("input", "z", z.shape)
    values = {
        "y": apply(Convolution(window), seen, weight) + added,
        "dx": apply(InputGradient(window, (7, 7)), added, weight),
    }

    def run(name: str, far: int) -> tuple[Array, list[str]]:
        monkeypatch.setattr(winograd, "FAR_BYTES", far)
        machine = Machine(Graph({name: values[name]}), {"x": x, "w": w, "z": z})
        return machine.run()[name], [call.algorithm for call in machine.program.calls if "winograd" in call.algorithm]

    for name, value in values.items():
        (found, [there]), (before, [apart]) = run(name, 0), run(name, 2**40)
        assert "transformed there" in there
        assert "transformed there" not in apart
        np.testing.assert_array_equal(found, before)
        [true] = evaluate([value], wide({"x": x, "w": w, "z": z}))
        np.testing.assert_allclose(found, true, atol=1e-5 * np.abs(true).max())
