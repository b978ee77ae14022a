"""From an ONNX file to a net: the graph as an `Imported` layer, and its arrays."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convolve.errors import ConvolveError, FileError
from convolve.layers.base import Construction
from convolve.layers.imported import HANDLERS, Imported, Node, Number, Origin, Stored
from convolve.layers.imported.folding import FOLDS, VIEWS, fold
from convolve.layers.imported.graph import DTYPES, Attribute
from convolve.onnx.proto import ELEMENTS, Source, named_after, parse, shape_of
from convolve.onnx.wire import Message
from convolve.port import Port

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

FLOAT, INT, STRING, TENSOR, GRAPH, FLOATS, INTS, STRINGS = range(1, 9)
SIZES = ("Shape", "Size")
"""Operators for which the elements of their input are nothing."""
GRAPHS = 10
"""Types of attributes, by AttributeProto.AttributeType."""
MOST_FOLDED = 1 << 28
"""Elements of all that follows from constants and has memory of its own, at most."""
MOST_WORK = 1 << 30
"""Elements that are read to fold constants, at most."""


class Constants:
    """A file's constants by name. Those of the file are read when somebody wants their elements."""

    def __init__(self, source: Source, hollow: Collection[str]) -> None:
        self._source, self._hollow = source, hollow
        self._tensors = {t.name: t for t in source.model.graph.initializer}
        self._made: dict[str, np.ndarray] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self.seen: set[str] = set()
        """Names of those of the file whose elements the net depends on."""
        self._left, self._work = MOST_FOLDED, MOST_WORK

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        self.see(name)
        return self.weight(name)

    def see(self, name: str) -> None:
        """Note that the net depends on the elements of one."""
        self.seen.add(self._places.get(name, (name, 0))[0])

    def place(self, view: np.ndarray, whole: np.ndarray, name: str) -> tuple[str, int]:
        """Where a view of one of this name begins: in which constant, and at which element."""
        source, first = self._places.get(name, (name, 0))
        return source, first + (view.ctypes.data - whole.ctypes.data) // view.itemsize

    def weight(self, name: str) -> np.ndarray:
        """One of which the net depends on the shape alone."""
        if name in self._made:
            return self._made[name]
        if name in self._hollow:
            return np.broadcast_to(np.float32(0), self.shape(name))
        return _plain(name, self._source.array(self._tensors[name]))

    def release(self) -> None:
        """Let go of what was read: nobody holds an array of it any more."""
        self._source.pages.release()

    def __setitem__(self, name: str, array: np.ndarray) -> None:
        """Enter what was computed; a constant that repeats a number costs nothing until it is kept."""
        self._left -= array.size if array.flags.owndata or 0 in array.strides else 0
        if self._left < 0:
            raise FileError(f"{name}: what follows from its constants has more than {MOST_FOLDED:,} elements")
        self._made[name] = array

    def follow(self, name: str, array: np.ndarray, node: Node, operands: Mapping[str, np.ndarray]) -> None:
        """Enter what follows from others: a view of one of them, or elements that depend on theirs."""
        viewed = next((of for of, x in operands.items() if np.may_share_memory(array, x)), None)
        if viewed is not None:
            self._places[name] = self.place(array, operands[viewed], viewed)
        for of in operands:
            if of != viewed and node.op not in SIZES:
                self.see(of)
        self[name] = array

    def spend(self, elements: int) -> None:
        """Count work with constants, of which a file may ask for so much."""
        self._work -= elements
        if self._work < 0:
            raise FileError(f"computing what follows from its constants takes more than {MOST_WORK:,} elements")

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._made:
            return self._made[name].shape
        return shape_of(self._tensors[name].dims, f"constant {name}")

    def is_float(self, name: str) -> bool:
        if name in self._made:
            return self._made[name].dtype == np.float32
        return "float" in ELEMENTS.get(self._tensors[name].data_type, "")


class Kept(Mapping[str, np.ndarray]):
    """The arrays of a network, found among those of a file when they are asked for."""

    def __init__(self, constants: Constants, origins: Mapping[Origin, str]) -> None:
        self._constants = constants
        self._origins = {key: origin for origin, key in origins.items()}

    def __getitem__(self, key: str) -> np.ndarray:
        """A view of the file's array, its elements in the network's order."""
        self._constants.release()
        origin = self._origins[key]
        return origin.layout.turned(self._constants.weight(origin.name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._origins)

    def __len__(self) -> int:
        return len(self._origins)


@dataclass(frozen=True)
class Reading:
    """What a file holds: the net, and its constants by the names they have in the file."""

    net: Imported
    constants: Constants
    metadata: dict[str, str]
    producer: str = ""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where the file says them as `Model.export_onnx` writes them: a list as JSON."""
        try:
            found = json.loads(self.metadata.get("classes", "null"))
        except (ValueError, RecursionError):
            return None
        listed = isinstance(found, list) and all(isinstance(name, str) for name in found)
        return tuple(found) if listed and found else None

    def laid_out(self, made: Construction) -> Kept:
        """The arrays as the network keeps them, by its keys."""
        return Kept(self.constants, made.origins)


def read(source: str | Path | bytes, hollow: Collection[str] = ()) -> Reading:
    """The net of an ONNX file, or of its bytes; constants that are `hollow` may lack their elements.

    Raises:
        FileError: the file cannot be read, is damaged, or has operators that are not known; these are listed.
    """
    with named_after(source):
        return _Reader(parse(source), hollow).reading()


class _Reader:
    """One file on its way to a net."""

    def __init__(self, source: Source, hollow: Collection[str]) -> None:
        model = source.model
        self.source, self.graph = source, model.graph
        self.opset = opset_of(model)
        self.producer = str(model.producer_name)
        self.metadata = {p.key: p.value for p in model.metadata_props}
        self.constants = Constants(source, hollow)

    def reading(self) -> Reading:
        inputs = tuple(port_of(v) for v in self.graph.input if v.name not in self.constants)
        outputs = tuple(port_of(v) for v in self.graph.output)
        nodes = self._needed(self._folded(self._nodes()), outputs)
        problems = list(unsupported(nodes))
        if problems:
            raise FileError(
                f"the file has what is not supported: {'; '.join(problems)}. All that is known is listed by "
                "help(convolve.from_onnx)"
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
                if self._is_weight(name, users) and name not in prepared:
                    stored.append(Stored(name, self.constants.shape(name)))
                else:
                    numbers.append(number_of(name, self.constants[name]))
        fixed = _fixed(nodes)
        inputs = tuple(replace(p, fixed=p.name in fixed) for p in inputs)
        net = Imported(inputs, outputs, tuple(named(nodes)), tuple(numbers), tuple(stored), self.opset)
        return Reading(net, self.constants, self.metadata, self.producer)

    def _is_weight(self, name: str, users: Sequence[tuple[str, int]]) -> bool:
        if not self.constants.is_float(name):
            return False
        size = math.prod(self.constants.shape(name))
        surely = any(place in WEIGHTS.get(op, ()) for op, place in users)
        likely = size > 1 and any(place in LIKELY.get(op, ()) for op, place in users)
        return surely or likely or size > SMALL

    def _nodes(self) -> Iterator[Node]:
        for node in self.graph.node:
            if node.domain not in ("", "ai.onnx"):
                yield Node(node.name, f"{node.domain}.{node.op_type}", tuple(node.input), tuple(node.output))
            elif node.op_type == "Constant" and len(node.output) == 1:
                self.constants[node.output[0]] = constant_of(self.source, node)
            else:
                yield node_of(self.source, node)

    def _folded(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes that depend on inputs; what follows from constants alone is computed here."""
        kept = []
        for node in nodes:
            known = all(name in self.constants for name in node.inputs if name)
            if node.op in FOLDS and known and any(node.outputs):
                operands = {name: self.constants.weight(name) for name in node.inputs if name}
                elements = sum(operands[name].size for name in node.inputs if name)
                self.constants.spend(1000 if node.op in VIEWS else elements)
                try:
                    made = fold(node, [operands.get(name) for name in node.inputs])
                except ConvolveError as error:
                    raise FileError(f"{node.name or node.outputs[0]}: {node.op}: {error}") from None
                for name, array in zip(node.outputs, made, strict=False):
                    if name in self.constants:
                        raise FileError(f"the name {name!r} stands for two values")
                    self.constants.follow(name, array, node, operands)
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
            if all(name in self.constants and math.prod(self.constants.shape(name)) <= SMALL for name in others):
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


def _fixed(nodes: Sequence[Node]) -> set[str]:
    """The values that must be known while the net is built: shapes and axes, and what these are computed from."""
    wanted: set[str] = set()
    for node in reversed(nodes):
        known = HANDLERS[node.op].known if node.op in HANDLERS else range(len(node.inputs))
        wanted.update(node.inputs[i] for i in known if i < len(node.inputs))
        if wanted.intersection(node.outputs) and node.op in FOLDS and node.op not in SIZES:
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


def opset_of(model: Message) -> int:
    found = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not found or found[0] < 1:
        raise FileError(f"expected an opset of the standard operators. Received: {found[0] if found else 'none'}")
    return int(found[0])


def type_name(number: int) -> str:
    """What an element type is called."""
    return ELEMENTS.get(number, f"type {number}")


def port_of(info: Message) -> Port:
    """An input or output as the file declares it."""
    tensor = info.type.tensor_type
    if not info.type.has("tensor_type"):
        kinds = [name for name in info.type.__dict__ if name.endswith("_type")]
        raise FileError(f"{info.name}: expected a tensor. Received: {kinds[0] if kinds else 'nothing'}")
    dtype = type_name(tensor.elem_type)
    if dtype not in DTYPES:
        raise FileError(f"{info.name}: expected elements of {', '.join(DTYPES)}. Received: {dtype}")
    if not tensor.has("shape"):
        raise FileError(
            f"{info.name}: its shape is not declared, not even the number of dimensions. "
            "onnx.shape_inference.infer_shapes declares what follows from the inputs"
        )
    shape: list[int | str] = []
    for place, dim in enumerate(tensor.shape.dim):
        word = dim.dim_param if dim.dim_param not in ("", "?") else f"{info.name}_{place}"
        shape.append(int(dim.dim_value) if dim.has("dim_value") and dim.dim_value > 0 else word)
    shape_of([n for n in shape if isinstance(n, int)], info.name)
    return Port(info.name, tuple(shape), dtype)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Floating-point numbers as float32."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if str(array.dtype) not in DTYPES:
        raise FileError(f"constant {name}: expected elements of {', '.join(DTYPES)}. Received: {array.dtype}")
    return array


def constant_of(source: Source, node: Message) -> np.ndarray:
    """The value of a Constant."""
    name = node.output[0]
    for attribute in node.attribute:
        value = value_of(source, node, attribute)
        if attribute.name == "value" and isinstance(value, np.ndarray):
            return value
        if attribute.name in ("value_float", "value_floats") and not isinstance(value, str):
            return np.asarray(value, np.float32)
        if attribute.name in ("value_int", "value_ints") and not isinstance(value, str):
            return np.asarray(value, np.int64)
    raise FileError(f"constant {name}: expected numbers. Received: {[a.name for a in node.attribute]}")


def value_of(source: Source, node: Message, attribute: Message) -> Attribute | np.ndarray:
    """What an attribute holds, by its type."""
    kind = attribute.type
    if kind == FLOAT:
        return float(attribute.f)
    if kind == INT:
        return int(attribute.i)
    if kind == STRING:
        return str(attribute.s, "utf-8", "replace")
    if kind == FLOATS:
        return tuple(attribute.floats)
    if kind == INTS:
        return tuple(attribute.ints)
    if kind == STRINGS:
        return tuple(str(s, "utf-8", "replace") for s in attribute.strings)
    if kind == TENSOR:
        return _plain(f"{attribute.name} of {node.name}", source.array(attribute.t))
    raise FileError(f"{node.name or node.op_type}: attribute {attribute.name} is of no type that is known")


def number_of(name: str, array: np.ndarray) -> Number:
    """A small constant; integers that mean "to the end" are cut to 32 bits."""
    if array.dtype.kind == "f":
        return Number(name, "float32", array.shape, tuple(array.ravel().tolist()))
    limit = 2**31 - 1
    values = np.clip(array.astype(np.int64), -limit, limit) if array.dtype != bool else array.astype(np.int64)
    return Number(name, str(array.dtype), array.shape, tuple(values.ravel().tolist()))


def node_of(source: Source, node: Message) -> Node:
    """A node with its attributes as plain values."""
    attributes: list[tuple[str, Attribute]] = []
    op = str(node.op_type)
    for attribute in node.attribute:
        if attribute.type in (GRAPH, GRAPHS):
            op = f"{node.op_type} with a graph inside"
            continue
        value = value_of(source, node, attribute)
        if isinstance(value, np.ndarray):
            if value.size != 1:
                raise FileError(f"{node.name}: attribute {attribute.name} must be one number. Received: {value.shape}")
            attributes += [(attribute.name, value.ravel()[0].item()), ("dtype", str(value.dtype))]
        elif attribute.name in ("to", "dtype", "output_dtype"):
            attributes.append((attribute.name, type_name(value if isinstance(value, int) else -1)))
        else:
            attributes.append((attribute.name, value))
    return Node(str(node.name), op, tuple(node.input), tuple(node.output), tuple(attributes))


__all__ = ["Reading", "named", "read", "unsupported"]
