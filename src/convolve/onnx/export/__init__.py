"""A net as an ONNX file, with its preprocessing, its parameters, and the names that its layers have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from convolve.errors import ConvolveError
from convolve.graph import leaf
from convolve.layers import Construction, Imported
from convolve.network import Network
from convolve.onnx.export.draft import BATCH, Draft, Node, first, is_batch, last
from convolve.onnx.export.layers import Writer
from convolve.onnx.library import library
from convolve.storage import expand, write

OLDEST_OPSET = 18
INPUT, OUTPUT = "input", "output"
LAYOUTS = ("channels_first", "channels_last")
DTYPES = ("float32", "uint8")
MOST_BYTES = 2**31 - 2**20
"""Of arrays in one file: its format counts bytes in 31 bits."""

Layout = Literal["channels_first", "channels_last"]
DType = Literal["float32", "uint8"]


def export_onnx(
    network: Network,
    path: str | Path,
    opset: int = OLDEST_OPSET,
    layout: Layout = "channels_first",
    dtype: DType = "float32",
    classes: Sequence[str] | None = None,
) -> None:
    """Write a net to an ONNX file, whole or not at all; see `Model.export_onnx`."""
    write(path, to_bytes(network, opset, layout, dtype, classes))


def to_bytes(
    network: Network,
    opset: int = OLDEST_OPSET,
    layout: Layout = "channels_first",
    dtype: DType = "float32",
    classes: Sequence[str] | None = None,
) -> bytes:
    """What `export_onnx` writes. Equal nets give equal bytes."""
    onnx = library()
    newest = onnx.defs.onnx_opset_version()
    if not isinstance(opset, int) or not OLDEST_OPSET <= opset <= newest:
        raise ConvolveError(
            f"opset must be a whole number from {OLDEST_OPSET} to {newest}, the newest that the installed onnx "
            f"{onnx.__version__} knows. Received: opset={opset!r}"
        )
    _one_of("layout", layout, LAYOUTS)
    _one_of("dtype", dtype, DTYPES)
    draft = Draft(opset, network.__getitem__, input=INPUT)
    draft.reserve(INPUT, OUTPUT)
    x = leaf("input", "x", (BATCH, *network.input_shape))
    # An imported net's dimensions are those of its file.
    order = first if layout == "channels_first" and not isinstance(network.net, Imported) else last
    tensor = INPUT if dtype == "float32" else draft.node("Cast", [INPUT], "cast", to=onnx.TensorProto.FLOAT)
    draft.put(x, tensor, order(len(x.shape)))
    writer = Writer(Construction(training=False), draft=draft)
    output = writer.build_net(expand(network.net, network.input_shape, training=False), x)["output"]
    draft.finish(output, order(len(output.shape)), OUTPUT)
    size = sum(array.nbytes for array in draft.initialisers.values())
    if size > MOST_BYTES:
        raise ConvolveError(f"an ONNX file holds 2 GiB. Received: a net with {size / 2**30:.1f} GiB of parameters")
    metadata = {"classes": json.dumps(list(classes), ensure_ascii=False)} if classes else {}
    shapes = {INPUT: _ordered(x.shape, order), OUTPUT: _ordered(output.shape, order)}
    return _serialised(onnx, draft, shapes, dtype, metadata)


def _one_of(what: str, given: object, known: Sequence[str]) -> None:
    if given not in known:
        raise ConvolveError(f"{what} must be {' or '.join(map(repr, known))}. Received: {what}={given!r}")


def _ordered(shape: tuple[int, ...], order: Any) -> tuple[int, ...]:
    return tuple(shape[i] for i in order(len(shape)).order)


def _serialised(
    onnx: ModuleType, draft: Draft, shapes: dict[str, tuple[int, ...]], dtype: str, metadata: dict[str, str]
) -> bytes:
    """The draft, whose arrays go with it, as the bytes of a file."""
    helper, types = onnx.helper, onnx.TensorProto
    opsets = [helper.make_opsetid("", draft.opset)]

    def described(name: str, shape: tuple[int, ...], type_: int = types.FLOAT) -> Any:
        sizes = [n if not is_batch(n) else "batch" if n == BATCH else None for n in shape]
        return helper.make_tensor_value_info(name, type_, sizes)

    graph = helper.make_graph(
        [_node(helper, node) for node in draft.nodes],
        "convolve",
        [described(INPUT, shapes[INPUT], types.FLOAT if dtype == "float32" else types.UINT8)],
        [described(OUTPUT, shapes[OUTPUT])],
        value_info=[
            described(name, shape)
            for name, shape in draft.shapes.items()
            if name not in shapes and name not in draft.initialisers
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="convolve",
    )
    helper.set_model_props(model, metadata)
    for name in list(draft.initialisers):  # one by one and in their place: a net's arrays may be half the memory
        array = draft.initialisers.pop(name)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        model.graph.initializer.add(name=name, dims=array.shape, data_type=kind, raw_data=data)
    made: bytes = model.SerializeToString(deterministic=True)
    return made


def _node(helper: Any, node: Node) -> Any:
    return helper.make_node(node.operator, node.inputs, node.outputs, node.name, **node.attributes)
