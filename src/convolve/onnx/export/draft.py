"""A file in the making: nodes, initialisers, and in which order of dimensions each value of the graph lies there.

convolve computes channels last, ONNX's operators want channels first. So a value's tensor comes with an order: which
dimension of the value each of the tensor's is. Operators ask for a value in the order they need, and a transposition is
written only where it was not made in that order already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convolve.errors import ConvolveError
from convolve.graph import Constant, Leaf, Shape, Value
from convolve.ops.vector import Vector

BATCH = 1_000_003
"""The batch size that nets are built for: a prime, so that a size made of it is known by being a multiple."""
TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}
"""Element types by ONNX's numbers (TensorProto.DataType)."""
ARRAYS = ("parameter", "statistic", "constant")
"""Kinds of leaves that stand for arrays of the net."""


@dataclass(frozen=True)
class Dims:
    """An order of dimensions: dimension i of the tensor is dimension `order[i]` of the value."""

    order: tuple[int, ...]

    def along(self, axis: int) -> int:
        """Where dimension `axis` of the value lies."""
        return self.order.index(axis)


@dataclass(frozen=True)
class Scan:
    """A flat value (n, features) whose features count a sample of `shape` (*spatial, channels) channels first."""

    shape: Shape

    @property
    def features(self) -> np.ndarray:
        """Which feature of the value each of the tensor's is."""
        size = int(np.prod(self.shape, dtype=np.int64))
        return np.moveaxis(np.arange(size).reshape(self.shape), -1, 0).ravel()


Order = Dims | Scan


def last(rank: int) -> Dims:
    """The value's own order, channels last."""
    return Dims(tuple(range(rank)))


def first(rank: int) -> Dims:
    """The channels behind the batch; the same as `last` where there are no spatial dimensions."""
    return Dims((0, rank - 1, *range(1, rank - 1))) if rank > 2 else last(rank)


def is_batch(size: int) -> bool:
    """Whether a dimension's size is the batch's, or a multiple of it."""
    return size > 0 and size % BATCH == 0


@dataclass(frozen=True)
class Node:
    """One application of an ONNX operator."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass
class Draft:
    """What has been written so far. Names of tensors are unique, and a node is named after its result."""

    opset: int
    arrays: Callable[[str], np.ndarray]
    """The net's arrays by key, as "parameter:conv1.weight"."""
    nodes: list[Node] = field(default_factory=list)
    initialisers: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """Of the tensors that hold a value of the graph."""
    path: str = ""
    """The layer that is being written."""
    input: str = ""
    """The file's input, the first of several."""
    _taken: set[str] = field(default_factory=set)
    _forms: dict[int, dict[Order, str]] = field(default_factory=dict)
    _shared: dict[object, str] = field(default_factory=dict)
    _flattened: dict[int, Value] = field(default_factory=dict)
    _truths: dict[str, str] = field(default_factory=dict)
    _given: set[str] = field(default_factory=set)

    # names, nodes, numbers

    def name(self, wanted: str) -> str:
        """The name itself, or with a number where another tensor has it."""
        found, number = wanted, 1
        while found in self._taken:
            number += 1
            found = f"{wanted}_{number}"
        self._taken.add(found)
        return found

    def inner(self, what: str) -> str:
        """A name within the layer that is being written."""
        return f"{self.path}.{what}" if self.path else what

    def node(self, operator: str, inputs: Sequence[str], name: str | None = None, **attributes: Any) -> str:
        """Write a node with one result, named after the layer unless it has a name. Returns the result's name."""
        made = self.name(name or self.inner(operator.lower()))
        self.nodes.append(Node(operator, made, tuple(inputs), (made,), attributes))
        return made

    def rename(self, name: str) -> str:
        """Name the last node and its result, which nothing reads yet."""
        made = self.name(name)
        self.nodes[-1] = replace(self.nodes[-1], name=made, outputs=(made,))
        return made

    def initialiser(self, array: np.ndarray, name: str) -> str:
        """An array of the file's own."""
        made = self.name(name)
        self.initialisers[made] = np.asarray(array, order="C")
        return made

    def integers(self, *values: int) -> str:
        """A list of integers, as operators take shapes and axes."""
        return self._once(values, np.array(values, np.int64), "_".join(["integers", *map(str, values)]))

    def number(self, value: float) -> str:
        return self._once(value, np.array(value, np.float32), f"number_{value!r}")

    def _once(self, key: object, array: np.ndarray, name: str) -> str:
        key = (array.dtype, key, repr(key))  # 0.0 and -0.0 are equal
        if key not in self._shared:
            self._shared[key] = self.initialiser(array, name)
        return self._shared[key]

    # values

    def put(self, value: Value, name: str, order: Order) -> None:
        """Let a tensor stand for a value."""
        self._forms.setdefault(value.serial, {})[order] = name
        shape = tuple(value.shape[i] for i in order.order) if isinstance(order, Dims) else value.shape
        self.shapes.setdefault(name, shape)

    def has(self, value: Value, order: Order | None = None) -> bool:
        """Whether a value was written, in that order or in any."""
        forms = self._forms.get(value.serial, {})
        return order in forms if order else bool(forms)

    def order(self, value: Value) -> Order:
        """In which order a value was made."""
        return next(iter(self._forms.get(value.serial, {last(len(value.shape)): ""})))

    def known(self, value: Value) -> np.ndarray | None:
        """The value itself, where it does not depend on the net's input: an array of the net, or numbers.

        Raises:
            ConvolveError: one of the numbers is the size of the batch, which is any.
        """
        if isinstance(value.op, Leaf) and value.op.kind in ARRAYS:
            return self.arrays(f"{value.op.kind}:{value.op.key}")
        if isinstance(value.op, (Constant, Vector)):
            numbers = value.op.reference()
            if np.any((numbers != 0) & np.isfinite(numbers) & (np.nan_to_num(numbers) % BATCH == 0)):
                raise ConvolveError(
                    f"export: {self.path or 'an output'}: computes with the size of the batch, which is left open; "
                    "such a net is written as it came alone. Leave out the opset"
                )
            return numbers.astype(np.float32)
        return None

    def at(self, value: Value, order: Order) -> str:
        """The tensor that holds a value in the order asked for; written now if there is none yet."""
        forms = self._forms.setdefault(value.serial, {})
        if order not in forms:
            array = self.known(value)
            self.put(value, self._turned(value, order) if array is None else self._stored(value, array, order), order)
        return forms[order]

    def _stored(self, value: Value, array: np.ndarray, order: Order) -> str:
        if isinstance(value.op, Constant):
            return self.number(value.op.value)
        name = value.op.key if isinstance(value.op, Leaf) else self.inner("numbers")
        return self.initialiser(
            array[..., order.features] if isinstance(order, Scan) else array.transpose(order.order), name
        )

    def _turned(self, value: Value, order: Order) -> str:
        """A value in another order than it was made in."""
        made = self.order(value)
        assert isinstance(order, Dims), f"{value} in the order {order}"
        name = self._forms[value.serial][made]
        if isinstance(made, Dims):
            return self.node("Transpose", [name], perm=[made.along(d) for d in order.order])
        rank = len(made.shape) + 1
        if value.serial in self._flattened:
            plain = self.at(self._flattened[value.serial], last(rank))
        else:
            image = self.node("Reshape", [name, self.integers(0, made.shape[-1], *made.shape[:-1])])
            plain = self.node("Transpose", [image], perm=[0, *range(2, rank), 1])
        return self.node("Flatten", [plain], axis=1)

    def flatten(self, value: Value, source: Value, name: str) -> None:
        """Write (n, *spatial, channels) -> (n, features), the features in the order in which `source` lies."""
        rank = len(source.shape)
        kept = [i for i in range(1, rank) if source.shape[i] != 1]
        made = self.order(source)
        if not isinstance(made, Dims) or made.order[0] != 0:
            made = last(rank)
        alike = [i for i in made.order if i in kept] == kept
        if not alike:
            made = first(rank)
        tensor = self.node("Flatten", [self.at(source, made)], name, axis=1)
        self.put(value, tensor, last(2) if alike else Scan(source.shape[1:]))
        self._flattened[value.serial] = source

    def operand(self, value: Value, rank: int, order: Order) -> str:
        """A tensor that broadcasts against one of `rank` in `order` as the value does against the value."""
        here = len(value.shape)
        if here == 0 or (isinstance(order, Scan) and value.shape[-1] == 1):
            return self.at(value, last(here))
        if isinstance(order, Scan):
            return self.at(value, order)
        missing = rank - here
        if not missing:
            return self.at(value, order)
        # Dimensions of the value where the tensor has them; leading ones need not be written.
        walk = [d - missing for d in order.order]
        while walk and walk[0] < 0:
            walk.pop(0)
        own = Dims(tuple(d for d in walk if d >= 0))
        ones = [i for i, d in enumerate(walk) if d < 0]
        if not ones:
            return self.at(value, own)
        key = ("operand", value.serial, tuple(walk))
        if key not in self._shared:
            array = self.known(value)
            if array is None:
                made = self.node("Unsqueeze", [self.at(value, own), self.integers(*ones)])
            else:
                assert isinstance(value.op, Leaf | Vector)
                name = value.op.key if isinstance(value.op, Leaf) else self.inner("numbers")
                made = self.initialiser(np.expand_dims(array.transpose(own.order), ones), name)
            self._shared[key] = made
        return self._shared[key]

    def truth(self, name: str, condition: str | None = None) -> str:
        """The tensor of truth values that a tensor of numbers was made from, or is not zero where; `condition` sets."""
        if condition is not None:
            self._truths[name] = condition
        elif name not in self._truths:
            self._truths[name] = self.node("Cast", [name], to=TYPES["bool"])
        return self._truths[name]

    # the interface

    def reserve(self, *names: str) -> None:
        """Keep names for the file's inputs and outputs."""
        self._taken.update(names)

    def take(self, value: Value, name: str, order: Order, dtype: str) -> None:
        """Let an input of the file stand for a value."""
        tensor = name if dtype == "float32" else self.node("Cast", [name], f"{name}.cast", to=TYPES["float32"])
        self.put(value, tensor, order)

    def give(self, value: Value, name: str, order: Order, dtype: str) -> None:
        """Let an output of the file hold a value."""
        made = self.at(value, order)
        place = next((i for i, node in enumerate(self.nodes) if made in node.outputs), None)
        if dtype != "float32":
            self.nodes.append(Node("Cast", self.name(f"{name}.cast"), (made,), (name,), {"to": TYPES[dtype]}))
        elif place is None or made in self._given:
            self.nodes.append(Node("Identity", self.name(f"{name}.identity"), (made,), (name,), {}))
        else:
            self.nodes[place] = replace(self.nodes[place], outputs=(name,))
            renamed = {made: name}
            self.nodes = [replace(n, inputs=tuple(renamed.get(i, i) for i in n.inputs)) for n in self.nodes]
            for forms in self._forms.values():
                forms.update({form: name for form, tensor in forms.items() if tensor == made})
        self._given.add(name)

    def prune(self, outputs: Sequence[str]) -> None:
        """Leave out what the outputs do not depend on."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.initialisers = {k: v for k, v in self.initialisers.items() if k in needed}
        self.shapes = {k: v for k, v in self.shapes.items() if k in needed}
