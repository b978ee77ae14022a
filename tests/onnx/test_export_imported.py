"""Imported nets are exported as the graph they came as, with the weights they have now, or at another opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from helpers import IMPORTED, normal
from test_import import assert_alike, small_net, truth

from convolve import Conv, Model, ReLU, Sequential, from_onnx
from convolve.errors import ConvolveError, ShapeError
from convolve.onnx.export import to_bytes
from light_models import SHAPE, with_weights

pytest.importorskip("onnxruntime")


def parsed(data: bytes) -> Any:
    made = onnx.load_from_string(data)
    onnx.checker.check_model(made, full_check=True)
    return made


def test_the_graph_stays_and_the_weights_are_those_of_now() -> None:
    data, x = small_net(), normal((2, 3, 8, 10))
    model = from_onnx(data)
    before, after = parsed(data), parsed(to_bytes(model.network))
    for part in ("input", "output", "initializer"):
        assert sorted(map(str, getattr(before.graph, part))) == sorted(map(str, getattr(after.graph, part)))
    assert [(n.op_type, *n.input, *n.output) for n in before.graph.node] == [
        (n.op_type, *n.input, *n.output) for n in after.graph.node
    ]
    assert after.opset_import[0].version == 13
    model.parameters["fc.weight"] = model.parameters["fc.weight"] * 0.5
    model.parameters["conv1.bias"] = np.zeros(6, np.float32)
    assert_alike(model.predict(x), truth(to_bytes(model.network), {"x": x}), 1e-6)


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet"])
def test_a_net_at_its_own_and_another_opset(name: str) -> None:
    data, x = with_weights(name), normal(SHAPE)
    model = from_onnx(data)
    port = model.network.ports[0].name
    true = truth(data, {port: x})
    for opset in (None, 18, 22):
        made = to_bytes(model.network, opset)
        found = parsed(made)
        assert [i.name for i in found.graph.input] == [port]
        assert (found.opset_import[0].version >= 18) == (opset is not None)
        assert_alike(truth(made, {port: x}), true, 1e-5)


def rows(batch: int | str, side: int | str) -> bytes:
    """A net that makes many numbers of an image, and flattens them for however many images there are."""
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Resize", ["c", "", "factors"], ["r"], "up"),
        onnx.helper.make_node("Shape", ["r"], ["s"], "shape"),
        onnx.helper.make_node("Gather", ["s", "first"], ["n"], "count"),
        onnx.helper.make_node("Concat", ["n", "rest"], ["target"], "target", axis=0),
        onnx.helper.make_node("Reshape", ["r", "target"], ["y"], "flat"),
    ]
    arrays = {
        "w": normal((16, 3, 3, 3)),
        "factors": np.array([1, 1, 2, 2], np.float32),
        "first": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
    }
    info = [
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3, side, side]),
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, None]),
    ]
    initial = [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "rows", info[:1], info[1:], initial)
    return bytes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString())


@pytest.mark.parametrize("opset", [18, onnx.defs.onnx_opset_version()])
def test_a_net_for_any_batch_stays_one_at_another_opset(opset: int) -> None:
    model, x = from_onnx(rows("N", 32)), normal((3, 3, 32, 32))
    made = to_bytes(model.network, opset)
    assert parsed(made).opset_import[0].version == opset
    np.testing.assert_array_equal(from_onnx(made).predict(x), model.predict(x))
    assert_alike(model.predict(x), truth(made, {"x": x}), 1e-6)
    behind = Model(Sequential(ReLU(), model.net), (3, 32, 32))
    made = to_bytes(behind.network, opset, layout="channels_last")
    assert_alike(behind.predict(x), truth(made, {"input": x}), 1e-6)


@pytest.mark.parametrize("batch", ["N", 3])
def test_products_of_computed_matrices_are_exported(batch: int | str) -> None:
    """As attention has them: for each image, the rows of one value times those of another."""
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1]),
        onnx.helper.make_node("MatMul", ["x", "t"], ["a"], "likeness"),
        onnx.helper.make_node("Softmax", ["a"], ["s"], "shares", axis=-1),
        onnx.helper.make_node("MatMul", ["s", "x"], ["y"], "mean"),
    ]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, 7, 5]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "attention", info[:1], info[1:])
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString()
    model, x = from_onnx(data), normal((3, 7, 5))
    made = to_bytes(model.network, 18)
    parsed(made)
    assert_alike(model.predict(x), truth(made, {"x": x}), 1e-6)
    np.testing.assert_array_equal(from_onnx(made).predict(x), model.predict(x))


@pytest.mark.parametrize("opset", [None, 20])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_stay_those_of_the_interface(dtype: type[np.floating[Any]], opset: int | None) -> None:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    info = [onnx.helper.make_tensor_value_info(name, kind, ["N", 3, 6, 6]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(normal((3, 3, 1, 1)).astype(dtype), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")], "g", info[:1], info[1:], [weight]
    )
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString()
    model, x = from_onnx(data), normal((2, 3, 6, 6)).astype(dtype)
    made = to_bytes(model.network, opset)
    parsed(made)
    assert truth(made, {"x": x})["y"].dtype == dtype
    assert_alike(model.predict(x), truth(made, {"x": x}), 1e-3)


@pytest.mark.parametrize("opset", [18, onnx.defs.onnx_opset_version()])
def test_a_net_for_any_size_stays_one_at_another_opset(opset: int) -> None:
    model, x = from_onnx(rows(2, "side")), normal((2, 3, 9, 9))
    for made in (to_bytes(model.network), to_bytes(model.network, opset, classes=["a", "b"])):
        parsed(made)
        np.testing.assert_array_equal(from_onnx(made).predict(x), model.predict(x))
        assert from_onnx(made).network.ports == model.network.ports
    assert parsed(made).opset_import[0].version == opset
    assert from_onnx(made).classes == ("a", "b")
    assert_alike(model.predict(x), truth(made, {"x": x}), 1e-6)
    bound = to_bytes(from_onnx(rows(2, "side"), input_shape=(3, 9, 9)).network, opset)
    assert from_onnx(bound).input_shape == (3, 9, 9)


def test_a_net_that_computes_with_the_batch_is_written_as_it_came_alone() -> None:
    nodes = [
        onnx.helper.make_node("Shape", ["x"], ["s"], "shape"),
        onnx.helper.make_node("Cast", ["s"], ["f"], "cast", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["x", "f"], ["y"], "scaled"),
    ]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 2]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", info[:1], info[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model, x = from_onnx(made.SerializeToString()), normal((3, 2))
    np.testing.assert_array_equal(model.predict(x), x * np.array([3, 2], np.float32))
    np.testing.assert_array_equal(from_onnx(to_bytes(model.network)).predict(x), model.predict(x))
    with pytest.raises(ConvolveError, match=r"size of the batch.*Leave out the opset"):
        to_bytes(model.network, 20)


def test_a_net_for_any_size_that_cannot_be_brought_to_an_opset_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any, opset: int) -> Any:
        raise onnx.version_converter.ConvertError("no rule for Conv")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(ConvolveError, match=r"to opset 18 \(no rule for Conv\)\. Leave out the opset, or.*input_shape"):
        to_bytes(from_onnx(rows(2, "side")).network, 18)


def test_a_net_for_any_size_of_other_floats_is_written_for_one() -> None:
    kind = onnx.TensorProto.FLOAT16
    info = [onnx.helper.make_tensor_value_info(name, kind, [1, 3, "side", "side"]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"], "relu")], "g", info[:1], info[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    with pytest.raises(ShapeError, match=r"takes any, x \(1, 3, side, side\) of float16.*input_shape"):
        to_bytes(from_onnx(model.SerializeToString()).network)


def test_an_imported_part_of_a_net_is_exported_with_it() -> None:
    model = Model(Sequential(IMPORTED, ReLU()), (2, 6, 5), seed=3)
    x = normal((3, 2, 6, 5))
    made = to_bytes(model.network, 18, layout="channels_last")
    parsed(made)
    assert_alike(model.predict(x), truth(made, {"input": x}), 1e-6)


def test_classes_come_back() -> None:
    model = Model(Conv(3, 1), (4, 4, 2), classes=["a", "b", "\u00fc"])
    again = from_onnx(to_bytes(model.network, classes=model.classes))
    assert again.classes == ("a", "b", "\u00fc")
    third = from_onnx(to_bytes(again.network, classes=again.classes))
    assert third.classes == again.classes
    assert from_onnx(to_bytes(model.network)).classes is None
