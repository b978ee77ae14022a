"""Imported nets are looked into like others: what a value is made of, operator by operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from convolve import BatchNorm, Conv, Dense, GlobalAvgPool, MaxPool, Model, ReLU, Residual, Sequential, from_onnx
from convolve.view.anatomy import Anatomy
from convolve.view.drawing import drawing
from convolve.view.excitation import crop, measure
from convolve.view.filters import filters, with_filters
from convolve.view.layout import layout
from convolve.view.made import Joined, Normalised, Pooled, Products, Shares
from convolve.view.pixel import Traced


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng([1, *shape]).standard_normal(shape).astype(np.float32)


def net() -> Model:
    weights = {
        "w1": normal(8, 3, 3, 3) * 0.3,
        "b1": normal(8),
        "scale": np.abs(normal(8)) + 0.5,
        "shift": normal(8),
        "mean": normal(8) * 0.1,
        "variance": np.abs(normal(8)) + 0.5,
        "w2": normal(8, 4, 2, 2),
        "w3": normal(4, 8) * 0.3,
        "b3": normal(4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"], "norm"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu"),
        helper.make_node("MaxPool", ["r1"], ["m1"], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["m1", "r1"], ["s1"], "join"),
        helper.make_node("ConvTranspose", ["s1", "w2"], ["t1"], "up", strides=[2, 2], group=2),
        helper.make_node("GlobalAveragePool", ["t1"], ["g1"], "mean"),
        helper.make_node("Flatten", ["g1"], ["f1"], "flat"),
        helper.make_node("Gemm", ["f1", "w3", "b3"], ["z"], "head", transB=1, alpha=0.5),
        helper.make_node("Softmax", ["z"], ["y"], "shares"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return from_onnx(model.SerializeToString())


def test_operators_are_explained_as_layers_are() -> None:
    found = Traced(net().network, normal(1, 3, 12, 12))
    kinds = {}
    for path, row in found.anatomy.rows.items():
        shape = row.output.shape[1:]
        for position in (tuple(0 for _ in shape), tuple(n // 2 for n in shape), tuple(n - 1 for n in shape)):
            pixel = found.pixel(path, position)
            kinds[path] = type(pixel.made)
            assert pixel.error < 1e-6, pixel
    assert kinds["conv"] is kinds["up"] is kinds["head"] is Products
    assert kinds["pool"] is kinds["mean"] is Pooled
    assert (kinds["norm"], kinds["join"], kinds["shares"]) == (Normalised, Joined, Shares)


def test_a_patch_is_cut_from_what_the_file_calls_channels_first() -> None:
    found = Traced(net().network, normal(1, 3, 12, 12))
    made = found.pixel("conv", (1, 2, 0)).made
    assert isinstance(made, Products)
    np.testing.assert_array_equal(made.patch, found.x[0, :, 1:4, 3:6].transpose(1, 2, 0))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """A net, and the same from an ONNX file that takes channels first."""
    path: Path = tmp_path_factory.mktemp("look") / "net.onnx"
    body = Residual(Conv(8, 3), ReLU(), Conv(8, 3))
    net = Sequential(Conv(8, 3), BatchNorm(), ReLU(), MaxPool(2), body, ReLU(), GlobalAvgPool(), Dense(4))
    model = Model(net, input_shape=(16, 20, 3))
    model.export_onnx(path)
    return model, from_onnx(path)


def first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_where_an_answer_comes_from_is_the_same_with_channels_first(pair: tuple[Model, Model], method: str) -> None:
    model, imported = pair
    x = normal(1, 16, 20, 3)
    expected, found = model.saliency(x, 2, method), imported.saliency(first(x), 2, method)
    assert found.map.shape == (16, 20)
    np.testing.assert_allclose(found.map, expected.map, atol=1e-5 * np.abs(expected.map).max())


def test_filters_of_operators_are_measured_as_those_of_layers(pair: tuple[Model, Model]) -> None:
    model, imported = pair
    x, y = normal(20, 16, 20, 3), np.arange(20) % 4
    assert with_filters(Anatomy(imported.network)) == ["conv1", "residual1.conv1", "residual1.conv2", "dense1"]
    np.testing.assert_allclose(
        filters(imported.network, "conv1").weights, filters(model.network, "conv1").weights, rtol=1e-6
    )
    *_, expected = measure(model.network, "conv1", x, y, top=3)
    *_, found = measure(imported.network, "conv1", first(x), y, top=3)
    assert found.heard == "relu1"
    np.testing.assert_array_equal(found.samples, expected.samples)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.accuracy_without, expected.accuracy_without)
    sample = first(x)[found.samples[0, 0]]
    np.testing.assert_array_equal(
        crop(np.moveaxis(sample, 0, -1), found.box(0, 0)), crop(x[found.samples[0, 0]], found.box(0, 0))
    )


def test_an_imported_net_is_drawn(pair: tuple[Model, Model]) -> None:
    found = layout(pair[1].network, together=True)
    kinds = {place.layer: (place.kind, place.detail, place.followers) for place in found.places}
    assert kinds["conv1"] == ("Conv", "3 x 3", ("BatchNormalization", "Relu"))
    assert ("max_pool1", "residual1") in {(e.source, e.target) for e in found.edges if e.lane is not None}
    assert "BatchNormalization" in drawing(pair[1].network, "net")
