"""From an ONNX file to a net: the graph as an `Imported` layer, and its arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convolve.errors import ConvolveError, FileError
from convolve.layers.base import Construction, Port
from convolve.layers.imported import HANDLERS, Imported, Node, Number, Stored
from convolve.layers.imported.folding import FOLDS, fold
from convolve.layers.imported.graph import DTYPES, Attribute

PRODUCER = "convolve"
"""What files that convolve wrote say."""
SMALL = 1024
"""Elements up to which a constant that is no weight is kept with the net, known while it is built."""
WEIGHTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
}
"""Inputs of operators that are weights, whatever their size."""
PREPARING = ("Add", "Sub", "Mul", "Div")
LIKELY: dict[str, tuple[int, ...]] = dict.fromkeys((*PREPARING, "MatMul"), (0, 1))
"""Inputs that are weights if they have more than one element."""


@dataclass(frozen=True)
class Reading:
    """What a file holds: the net, and its arrays by the names they have in the file."""

    net: Imported
    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    producer: str = ""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where the file says them as `Model.export_onnx` writes them: a list as JSON."""
        try:
            found = json.loads(self.metadata.get("classes", "null"))
        except ValueError:
            return None
        listed = isinstance(found, list) and all(isinstance(name, str) for name in found)
        return tuple(found) if listed and found else None

    def laid_out(self, made: Construction) -> dict[str, np.ndarray]:
        """The arrays as the network keeps them, by its keys."""
        return {
            key: np.asarray(origin.layout.of(self.arrays[origin.name]), np.float32)
            for origin, key in made.origins.items()
        }


def read(source: str | Path | bytes) -> Reading:
    """The net of an ONNX file, or of its bytes.

    Raises:
        FileError: the file cannot be read, is damaged, or has operators that are not known; these are listed.
    """
    from convolve.onnx.proto import parse

    model = parse(source)
    return _Reader(model).reading()


class _Reader:
    """One file on its way to a net."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.opset = opset_of(model)
        self.producer = str(model.producer_name)
        self.metadata = {p.key: p.value for p in model.metadata_props}
        self.constants: dict[str, np.ndarray] = {}

    def reading(self) -> Reading:
        self.constants = {t.name: array_of(t) for t in self.graph.initializer}
        inputs = tuple(port_of(v) for v in self.graph.input if v.name not in self.constants)
        outputs = tuple(port_of(v) for v in self.graph.output)
        nodes = self._needed(self._folded(self._nodes()), outputs)
        problems = list(unsupported(nodes))
        if problems:
            raise FileError(
                f"the file has what is not supported: {'; '.join(problems)}. All that is known is listed in the "
                "documentation of convolve.from_onnx"
            )
        read_by: dict[str, list[tuple[str, int]]] = {}
        for node in nodes:
            for place, name in enumerate(node.inputs):
                read_by.setdefault(name, []).append((node.op, place))
        for port in outputs:
            read_by.setdefault(port.name, []).append(("", 0))
        numbers, stored = [], []
        prepared = self._prepared(nodes, inputs)
        for name, users in read_by.items():
            if name in self.constants:
                array = self.constants[name]
                if _is_weight(array, users) and name not in prepared:
                    stored.append(Stored(name, array.shape))
                else:
                    numbers.append(number_of(name, array))
        fixed = _fixed(nodes)
        inputs = tuple(replace(p, fixed=p.name in fixed) for p in inputs)
        net = Imported(inputs, outputs, tuple(named(nodes)), tuple(numbers), tuple(stored), self.opset)
        return Reading(net, {s.name: self.constants[s.name] for s in stored}, self.metadata, self.producer)

    def _nodes(self) -> Iterator[Node]:
        for node in self.graph.node:
            if node.domain not in ("", "ai.onnx"):
                yield Node(node.name, f"{node.domain}.{node.op_type}", tuple(node.input), tuple(node.output))
            elif node.op_type == "Constant":
                self.constants[node.output[0]] = constant_of(node)
            else:
                yield node_of(node)

    def _folded(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes that depend on inputs; what follows from constants alone is computed here."""
        kept = []
        for node in nodes:
            operands = [self.constants.get(name) if name else None for name in node.inputs]
            known = all(o is not None for name, o in zip(node.inputs, operands, strict=True) if name)
            if node.op in FOLDS and known and any(node.outputs):
                try:
                    made = fold(node, operands)
                except (ConvolveError, ValueError, IndexError, TypeError) as error:
                    raise FileError(f"{node.name or node.outputs[0]}: {node.op}: {error}") from None
                self.constants |= dict(zip(node.outputs, made, strict=False))
            elif node.op == "Identity" and node.inputs[0] in self.constants:
                self.constants[node.outputs[0]] = self.constants[node.inputs[0]]
            else:
                kept.append(node)
        return kept

    def _prepared(self, nodes: Sequence[Node], inputs: Sequence[Port]) -> set[str]:
        """Constants that inputs are brought to the range of a net with: preprocessing, which is not learnt."""
        raw, found = {p.name for p in inputs}, set[str]()
        for node in nodes:
            if node.op not in (*PREPARING, "Cast", "Identity", "Transpose") or not raw.intersection(node.inputs):
                continue
            others = [name for name in node.inputs if name not in raw]
            if all(name in self.constants and self.constants[name].size <= SMALL for name in others):
                raw.update(node.outputs)
                found.update(others)
        return found

    def _needed(self, nodes: Sequence[Node], outputs: Sequence[Port]) -> list[Node]:
        """The nodes on which the outputs depend."""
        wanted = {p.name for p in outputs}
        kept = []
        for node in reversed(nodes):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs)
                kept.append(node)
        return kept[::-1]


def _is_weight(array: np.ndarray, users: Sequence[tuple[str, int]]) -> bool:
    if array.dtype != np.float32:
        return False
    surely = any(place in WEIGHTS.get(op, ()) for op, place in users)
    likely = array.size > 1 and any(place in LIKELY.get(op, ()) for op, place in users)
    return surely or likely or array.size > SMALL


def _fixed(nodes: Sequence[Node]) -> set[str]:
    """The values that must be known while the net is built: shapes and axes, and what these are computed from."""
    wanted: set[str] = set()
    for node in reversed(nodes):
        known = HANDLERS[node.op].known if node.op in HANDLERS else range(len(node.inputs))
        wanted.update(node.inputs[i] for i in known if i < len(node.inputs))
        if wanted.intersection(node.outputs) and node.op in FOLDS and node.op not in ("Shape", "Size"):
            wanted.update(node.inputs)
    return wanted


def unsupported(nodes: Iterable[Node]) -> Iterator[str]:
    """What of the nodes is not known, by operator, with the nodes' names."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        name = node.name or next(filter(None, node.outputs), "")
        if node.op not in HANDLERS and node.op not in FOLDS:
            found.setdefault(f"operator {node.op}", []).append(name)
        else:
            for what in HANDLERS[node.op].refuses(node) if node.op in HANDLERS else ():
                found.setdefault(f"{node.op} with {what}", []).append(name)
    for what, names in found.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        yield f"{what} ({', '.join(names[:5])}{more})"


def named(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes with names made of letters, digits, _, - and dots, each once."""
    taken: set[str] = set()
    for node in nodes:
        given = node.name or next(filter(None, node.outputs), "")
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", given).strip("_.")
        short = name.removesuffix(f"_{node.op}")
        base = short if short and short not in taken else name or node.op.lower()
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        yield replace(node, name=name)


def opset_of(model: Any) -> int:
    found = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not found or found[0] < 1:
        raise FileError(f"expected an opset of the standard operators. Received: {found[0] if found else 'none'}")
    return int(found[0])


def element_type(number: int, what: str) -> str:
    """The name of an element type."""
    from onnx import helper

    try:
        name = str(np.dtype(helper.tensor_dtype_to_np_dtype(number)))
    except (KeyError, TypeError):
        name = f"number {number}"
    return name


def port_of(info: Any) -> Port:
    """An input or output as the file declares it."""
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        raise FileError(f"{info.name}: expected a tensor. Received: {info.type.WhichOneof('value') or 'nothing'}")
    dtype = element_type(tensor.elem_type, info.name)
    if dtype not in DTYPES:
        raise FileError(f"{info.name}: expected elements of {', '.join(DTYPES)}. Received: {dtype}")
    if not tensor.HasField("shape"):
        raise FileError(f"{info.name}: its shape is not declared, not even the number of dimensions")
    shape: list[int | str] = []
    for place, dim in enumerate(tensor.shape.dim):
        word = dim.dim_param if dim.dim_param not in ("", "?") else f"{info.name}_{place}"
        shape.append(int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else word)
    return Port(info.name, tuple(shape), dtype)


def array_of(tensor: Any) -> np.ndarray:
    """A constant of the file."""
    from onnx import numpy_helper

    return _plain(tensor.name, np.asarray(numpy_helper.to_array(tensor)))


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Floating-point numbers as float32."""
    if array.dtype.kind == "f" or str(array.dtype) in ("bfloat16", "float16"):
        return array.astype(np.float32, copy=False)
    if str(array.dtype) not in DTYPES:
        raise FileError(f"constant {name}: expected elements of {', '.join(DTYPES)}. Received: {array.dtype}")
    return array


def constant_of(node: Any) -> np.ndarray:
    """The value of a Constant."""
    from onnx import helper

    name = node.output[0] if node.output else node.name
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return array_of(value)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    raise FileError(f"constant {name}: expected numbers. Received: {[a.name for a in node.attribute]}")


def number_of(name: str, array: np.ndarray) -> Number:
    """A small constant; integers that mean "to the end" are cut to 32 bits."""
    if array.dtype.kind == "f":
        return Number(name, "float32", array.shape, tuple(array.ravel().tolist()))
    limit = 2**31 - 1
    values = np.clip(array.astype(np.int64), -limit, limit) if array.dtype != bool else array.astype(np.int64)
    return Number(name, str(array.dtype), array.shape, tuple(values.ravel().tolist()))


def node_of(node: Any) -> Node:
    """A node with its attributes as plain values."""
    from onnx import AttributeProto, TensorProto, helper

    attributes: list[tuple[str, Attribute]] = []
    op = str(node.op_type)
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            op = f"{node.op_type} with a graph inside"
            continue
        value = helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            array = array_of(value)
            if array.size != 1:
                raise FileError(f"{node.name}: attribute {attribute.name} must be one number. Received: {array.shape}")
            attributes += [(attribute.name, array.ravel()[0].item()), ("dtype", str(array.dtype))]
        elif attribute.name in ("to", "dtype", "output_dtype"):
            attributes.append((attribute.name, element_type(int(value), node.name)))
        else:
            attributes.append((attribute.name, _word(value)))
    return Node(str(node.name), op, tuple(node.input), tuple(node.output), tuple(attributes))


def _word(value: Any) -> Attribute:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, float)):
        return value
    return tuple(_word(v) for v in value)  # type: ignore[return-value]


__all__ = ["Reading", "named", "read", "unsupported"]
