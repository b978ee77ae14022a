"""A net as an ONNX file, with its preprocessing, its parameters, and the names that its layers have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Shape, Value, leaf
from convolve.layers import Construction, Imported, Port
from convolve.layers.imported.site import numbers
from convolve.network import Network
from convolve.onnx.export.draft import BATCH, TYPES, Dims, Draft, Node, first, is_batch, last
from convolve.onnx.export.imported import copied
from convolve.onnx.export.layers import Writer
from convolve.onnx.export.operators import write
from convolve.onnx.library import library
from convolve.storage import expand
from convolve.storage import write as write_file

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
    opset: int | None = None,
    layout: Layout = "channels_first",
    dtype: DType = "float32",
    classes: Sequence[str] | None = None,
) -> None:
    """Write a net to an ONNX file, whole or not at all; see `Model.export_onnx`."""
    write_file(path, to_bytes(network, opset, layout, dtype, classes))


def to_bytes(
    network: Network,
    opset: int | None = None,
    layout: Layout = "channels_first",
    dtype: DType = "float32",
    classes: Sequence[str] | None = None,
) -> bytes:
    """What `export_onnx` writes. Equal nets give equal bytes."""
    onnx, net = library(), network.net
    _one_of("layout", layout, LAYOUTS)
    _one_of("dtype", dtype, DTYPES)
    metadata = {"classes": json.dumps(list(classes), ensure_ascii=False)} if classes else {}
    if isinstance(net, Imported):
        same, fixed = opset in (None, net.opset), all(isinstance(n, int) for p in network.ports for n in p.shape[1:])
        own = copied(network, net) if same or not fixed else None
        if own is not None:
            came = _serialised(onnx, own, net.inputs, net.outputs, metadata)
            return came if same else _converted(onnx, came, _checked(onnx, opset))
        inputs = _sized(network)
        draft = _written(network, net, _checked(onnx, opset), last, inputs, net.outputs)
        return _serialised(onnx, draft, inputs, net.outputs, metadata)
    net = expand(net, network.input_shape, training=False)
    order = first if layout == "channels_first" else last
    given = Port(INPUT, _ordered(("batch", *network.input_shape), order), dtype)
    result = Port(OUTPUT, _ordered(("batch", *network.output_shape), order))
    draft = _written(network, net, _checked(onnx, opset), order, [given], [result])
    return _serialised(onnx, draft, [given], [result], metadata)


def _converted(onnx: ModuleType, came: bytes, opset: int) -> bytes:
    """A file as it came at another opset, by the onnx package's rules: the net may take any size then.

    Raises:
        ConvolveError: it has no rule for an operator of it.
    """
    try:
        made = onnx.version_converter.convert_version(onnx.load_from_string(came), opset)
    except (onnx.version_converter.ConvertError, RuntimeError) as error:
        raise ConvolveError(
            f"export: the onnx package cannot bring a net that takes any size to opset {opset} ({error}). Leave out "
            "the opset, or say the size: from_onnx(path, input_shape=...)"
        ) from None
    made.ir_version = onnx.helper.find_min_ir_version_for(made.opset_import)
    found: bytes = made.SerializeToString(deterministic=True)
    return found


def _sized(network: Network) -> tuple[Port, ...]:
    """The inputs of an imported net that is written anew.

    Raises:
        ShapeError: a size besides the batch's is left open, and may stand in the net where nobody sees it.
    """
    for port in network.ports:
        if any(isinstance(n, str) for n in port.shape[1:]):
            raise ShapeError(
                "export: a net that is not written as it came, because training made two weights of one or its floats "
                f"are not float32, is written for one size. Received: one that takes any, {port}. Say the size: "
                "from_onnx(path, input_shape=...)"
            )
    return network.ports


def _checked(onnx: ModuleType, opset: int | None) -> int:
    newest: int = onnx.defs.onnx_opset_version()
    chosen = OLDEST_OPSET if opset is None else opset
    if not isinstance(chosen, int) or not OLDEST_OPSET <= chosen <= newest:
        raise ConvolveError(
            f"opset must be a whole number from {OLDEST_OPSET} to {newest}, the newest that the installed onnx "
            f"{onnx.__version__} knows. Received: opset={opset!r}"
        )
    return chosen


def _one_of(what: str, given: object, known: Sequence[str]) -> None:
    if given not in known:
        raise ConvolveError(f"{what} must be {' or '.join(map(repr, known))}. Received: {what}={given!r}")


def _ordered(shape: tuple[int | str, ...], order: Callable[[int], Dims]) -> tuple[int | str, ...]:
    return tuple(shape[i] for i in order(len(shape)).order)


def _written(
    network: Network,
    net: Any,
    opset: int,
    order: Callable[[int], Dims],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
) -> Draft:
    """The draft of a net, layer by layer, whose inputs and outputs lie in the given order."""
    draft = Draft(opset, network.__getitem__, input=inputs[0].name)
    draft.reserve(*(port.name for port in (*inputs, *outputs)))
    batch = network.ports[0].shape[0]
    given = network.feeds(batch if isinstance(batch, int) else BATCH)
    values = [leaf("input", f"x{i or ''}", feed.shape) for i, feed in enumerate(given)]
    for port, value in zip(inputs, values, strict=True):
        draft.take(value, port.name, order(len(value.shape)), port.dtype)
    found = Writer(Construction(training=False, unlimited=True), draft=draft).build_net(net, *values)
    made = [x if isinstance(x, Value) else numbers(x) for x in found.values()]
    for value in made:
        write(draft, value)
    for port, value in zip(outputs, made, strict=True):
        draft.give(value, port.name, order(len(value.shape)), port.dtype)
    draft.prune([port.name for port in outputs])
    return draft


def _serialised(
    onnx: ModuleType, draft: Draft, inputs: Sequence[Port], outputs: Sequence[Port], metadata: dict[str, str]
) -> bytes:
    """The draft, whose arrays go with it, as the bytes of a file.

    Raises:
        ConvolveError: a file cannot hold as much.
    """
    size = sum(array.nbytes for array in draft.initialisers.values())
    if size > MOST_BYTES:
        raise ConvolveError(f"an ONNX file holds 2 GiB. Received: a net with {size / 2**30:.1f} GiB of parameters")
    helper = onnx.helper
    opsets = [helper.make_opsetid("", draft.opset)]

    def described(port: Port) -> Any:
        return helper.make_tensor_value_info(port.name, TYPES[port.dtype], port.shape)

    interface = {port.name for port in (*inputs, *outputs)}
    graph = helper.make_graph(
        [_node(onnx, node) for node in draft.nodes],
        "convolve",
        [described(port) for port in inputs],
        [described(port) for port in outputs],
        value_info=[
            helper.make_tensor_value_info(name, TYPES["float32"], _sizes(shape))
            for name, shape in draft.shapes.items()
            if name not in interface and name not in draft.initialisers
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
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        model.graph.initializer.add(name=name, dims=array.shape, data_type=TYPES[str(array.dtype)], raw_data=data)
    made: bytes = model.SerializeToString(deterministic=True)
    return made


def _sizes(shape: Shape) -> list[int | str | None]:
    """A shape as files declare it; nothing is said of what is made of the batch."""
    return [n if not is_batch(n) else "batch" if n == BATCH else None for n in shape]


def _node(onnx: ModuleType, node: Node) -> Any:
    attributes = {
        name: onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attributes.items()
    }
    return onnx.helper.make_node(node.operator, node.inputs, node.outputs, node.name, **attributes)
