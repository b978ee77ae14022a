"""What is exported and imported again computes the same bits, wherever ONNX has an operator for the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from native.test_layers import EXAMPLES, OWN
from test_export import SMALL, normal, randomised, small

from convolve import AdaptiveAvgPool, AvgPool, GroupNorm, Layer, LayerNorm, Model, from_onnx, zoo
from convolve.graph import Shape
from convolve.layers import VOCABULARY, Expanded, Row
from convolve.onnx.export import to_bytes

NEWEST = onnx.defs.onnx_opset_version()
OPSETS = (18, 20, 21, NEWEST)
"""The oldest, those in which layers got operators of their own, the newest."""
TOLERANCE = 1e-6
"""Of the scale, where a layer is written with several operators, or sums are taken in another order."""

CASES = [
    pytest.param(layer, shape, id=f"{name}{index}")
    for name, examples in (*EXAMPLES.items(), ("Own", OWN))
    if name != "Imported"
    for index, (layer, shape) in enumerate(examples)
]


def has_operator(row: Row, opset: int) -> bool:
    """Whether ONNX has an operator for a layer, or the layer consists of such."""
    layer, shape = row.layer, row.inputs[0].shape
    if isinstance(layer, AdaptiveAvgPool):
        return layer.output_size == 1  # uneven shares are a product with a matrix
    if isinstance(layer, AvgPool):
        return layer.dilation == 1 or opset >= 19
    if isinstance(layer, GroupNorm):
        return len(shape) > 2 and opset >= 21
    if isinstance(layer, LayerNorm):
        return layer.axes in (-1, tuple(range(1, len(shape))))  # others are moved to the end
    return VOCABULARY.get(type(layer).__name__) is type(layer) and not isinstance(layer, Expanded)


def again(model: Model, **options: Any) -> Model:
    return from_onnx(to_bytes(model.network, **options))


def first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


@pytest.mark.parametrize(("layer", "shape"), CASES)
def test_a_layer_comes_back(layer: Layer, shape: Shape) -> None:
    model, x = randomised(layer, shape), normal(3, *shape)
    true, rows = model.predict(x), model.network.forward(1).construction.rows
    for opset in OPSETS:
        got = np.moveaxis(again(model, opset=opset).predict(first(x)), 1, -1)
        if all(has_operator(row, opset) for row in rows):
            np.testing.assert_array_equal(got, true)
        else:
            assert got.shape == true.shape
            assert np.abs(got - true).max() <= TOLERANCE * np.abs(true).max()


@pytest.mark.parametrize("name", zoo.NETS)
def test_a_net_comes_back(name: str) -> None:
    model = randomised(zoo.NETS[name].make(), SMALL[name])
    x = normal(2, *model.input_shape)
    made = again(model)
    np.testing.assert_array_equal(np.moveaxis(made.predict(first(x)), 1, -1), model.predict(x))
    assert made.parameter_count == model.parameter_count
    assert {*map(_bare, made.statistics)} == {*map(_bare, model.statistics)}


def _bare(name: str) -> str:
    """A name without the characters that an importer may change."""
    return name.replace(".", "_")


def test_a_layout_and_a_type_of_the_input_come_back() -> None:
    model = small()
    x = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 2), np.uint8)
    true = model.predict(x)
    np.testing.assert_array_equal(again(model, dtype="uint8").predict(first(x)), true)
    np.testing.assert_array_equal(again(model, layout="channels_last", dtype="uint8").predict(x), true)


def test_a_net_that_came_back_is_exported_as_it_came() -> None:
    model = small()
    data = to_bytes(model.network, 21, classes=model.classes)
    back = from_onnx(data)
    third = from_onnx(to_bytes(back.network, classes=back.classes))
    assert third.classes == model.classes
    assert {*third.parameters} == {*back.parameters}
    x = normal(2, 2, 6, 4)
    np.testing.assert_array_equal(third.predict(x), back.predict(x))
    assert to_bytes(third.network, classes=third.classes) == to_bytes(back.network, classes=back.classes)
