"""What is read of files, held against the onnx package."""

from __future__ import annotations

import numpy as np
import pytest
from fuzz import SEEDS
from onnx import ModelProto, TensorProto, helper, numpy_helper

from convolve.onnx.proto import ELEMENTS, parse
from convolve.onnx.wire import Message, decode

TYPES = sorted(ELEMENTS)


def holding(*tensors: TensorProto) -> bytes:
    graph = helper.make_graph([], "g", [], [helper.make_tensor_value_info("y", 1, [1])], list(tensors))
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("raw", [False, True], ids=["numbers", "raw"])
@pytest.mark.parametrize("kind", TYPES, ids=[ELEMENTS[kind] for kind in TYPES])
def test_elements_of_every_type_are_those_that_onnx_reads(kind: int, raw: bool) -> None:
    low = 0 if ELEMENTS[kind].startswith("u") else -3
    values = np.arange(low, low + 6) if ELEMENTS[kind] != "bool" else np.arange(6) % 2
    tensor = helper.make_tensor("t", kind, [2, 3], values)
    if raw:
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "t")
    source = parse(holding(tensor))
    found = source.array(source.model.graph.initializer[0])
    true = numpy_helper.to_array(tensor)
    np.testing.assert_array_equal(found, true.astype(np.float32) if ELEMENTS[kind] == "bfloat16" else true)
    assert found.shape == (2, 3)


@pytest.mark.parametrize("model", SEEDS, ids=lambda model: str(model.graph.node[0].op_type))
def test_nodes_are_those_that_onnx_reads(model: ModelProto) -> None:
    found = decode(memoryview(model.SerializeToString()), Message("model"))
    assert [o.version for o in found.opset_import] == [o.version for o in model.opset_import]
    assert [v.name for v in found.graph.input] == [v.name for v in model.graph.input]
    for ours, theirs in zip(found.graph.node, model.graph.node, strict=True):
        assert (ours.op_type, ours.name) == (theirs.op_type, theirs.name)
        assert (ours.input, ours.output) == (list(theirs.input), list(theirs.output))
        for a, b in zip(ours.attribute, theirs.attribute, strict=True):
            assert (a.name, a.type, a.i, a.ints, bytes(a.s)) == (b.name, b.type, b.i, list(b.ints), b.s)
            assert (a.f, a.floats) == (b.f, list(b.floats))


def test_numbers_may_come_one_by_one_or_packed() -> None:
    packed, single = b"\x0a\x04\x03\x96\x01\x01", b"\x08\x03\x08\x96\x01\x08\x01"
    for data in (packed, single):
        assert decode(memoryview(data), Message("tensor")).dims == [3, 150, 1]


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x05abc", b"\x08", b"\x08" + b"\xff" * 11, b"\x0a\x02\x80\x80", b"\x0b", b"\x42\x01\xff", b"\x45abcd"],
    ids=["short", "no value", "endless", "endless packed", "group", "no text", "another type"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(memoryview(data), Message("tensor"))
