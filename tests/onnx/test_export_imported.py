"""Imported nets are exported as the graph they came as, with the weights they have now, or at another opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from helpers import IMPORTED, normal
from test_import import assert_alike, small_net, truth

from convolve import Conv, Model, ReLU, Sequential, from_onnx
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
