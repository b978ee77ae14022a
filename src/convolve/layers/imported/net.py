"""`Imported`: a net that came as an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Shape, Value
from convolve.layers.base import Layer, Row, Scope
from convolve.layers.imported import folding
from convolve.layers.imported.graph import Node, Number, Stored
from convolve.layers.imported.site import HANDLERS, Operand, Site, numbers
from convolve.layers.imported.tensor import Tensor
from convolve.ops.pointwise import Pointwise
from convolve.port import Port

Names = tuple[str, ...]
MOST_ELEMENTS = 1 << 30
"""Elements of a value, at most: kernels count them in 32 bits."""
MOST_DIMENSIONS = 32
CHANNELS = (1, 2, 3, 4)
"""Of signals, images and volumes as files hold them."""


def _operand(known: Mapping[str, Operand], name: str) -> Operand:
    """What a name stands for."""
    if name not in known:
        raise ShapeError(f"{name!r} is a second output that convolve does not compute of its operator")
    return known[name]


def _bare(x: Value) -> Value:
    """An input of floats without its cast to them, which would copy it."""
    return x.inputs[0] if x.op == Pointwise("cast") and x.inputs[0].dtype == x.dtype else x


def _called(x: Value, label: str) -> Value:
    """A value that is called so where it has no name yet, in what `explain` tells."""
    return replace(x, label=label) if x.label == "" and x.inputs else x


@dataclass(frozen=True)
class Operator(Layer):
    """A node of an imported net as summaries and traces show it."""

    node: Node
    name: str | None = None

    def title(self) -> str:
        return self.node.op


@dataclass(frozen=True)
class Imported(Layer):
    """An ONNX graph: its inputs and outputs as the file says, its nodes in order, its constants.

    `numbers` are small constants, known while the net is built; `arrays` are what the network keeps: each becomes a
    parameter, a statistic or a constant, named after the node that reads it first.

    Raises:
        ConvolveError: a node reads what no earlier one makes; two values have one name.
        ShapeError: an operator does not suit its inputs; the message has the node's name.
    """

    container: ClassVar[bool] = True
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    numbers: tuple[Number, ...] = ()
    arrays: tuple[Stored, ...] = ()
    opset: int = 22
    name: str | None = None

    def __post_init__(self) -> None:
        sizes: list[tuple[int | str, ...]] = [p.shape for p in (*self.inputs, *self.outputs)]
        sizes += [a.shape for a in self.arrays] + [c.shape for c in self.numbers]
        for shape in sizes:
            counted = [n for n in shape if isinstance(n, int)]
            if len(shape) > MOST_DIMENSIONS or min(counted, default=1) < 0 or math.prod(counted) > MOST_ELEMENTS:
                raise ConvolveError(f"no array has the shape {shape[:8]}")
        known = {""}
        made = (*(p.name for p in self.inputs), *(c.name for c in self.numbers), *(a.name for a in self.arrays))
        given: list[tuple[str, Names, Names]] = [("", (), made), *((n.name, n.inputs, n.outputs) for n in self.nodes)]
        for node, reads, names in given:
            missing = [name for name in reads if name not in known]
            if missing:
                raise ConvolveError(f"node {node} reads {missing[0]!r}, which no earlier node makes")
            for name in names:
                if name and name in known:
                    raise ConvolveError(f"the name {name!r} stands for two values")
                known.add(name)
        missing = [p.name for p in self.outputs if not p.name or p.name not in known]
        if missing or not self.outputs:
            raise ConvolveError(f"an imported net needs outputs that its nodes make. Missing: {missing or 'all'}")

    def ports(self, input_shape: Shape | None) -> tuple[Port, ...]:
        """The inputs; `input_shape` (without the batch) stands for the first one's dimensions behind the batch."""
        if input_shape is None or not self.inputs:
            return self.inputs
        first, *others = self.inputs
        bound = dict(zip(first.shape[1:], input_shape, strict=False))
        fit = len(input_shape) == len(first.shape) - 1
        fit = fit and all(isinstance(n, str) or n == m for n, m in zip(first.shape[1:], input_shape, strict=True))
        if not fit:
            raise ShapeError(f"input_shape must fit the file's {first}. Received: input_shape={input_shape}")
        words = {n: m for n, m in bound.items() if isinstance(n, str)}
        return tuple(p.sized(words) for p in (first, *others))

    def channels_last(self) -> Imported:
        """The net for signals, images and volumes channels last, where the file takes them channels first.

        Such nets take what files and data sets hold. An input with one to four channels right behind the batch, and
        positions behind them, is taken for one.
        """
        taken = {n for node in self.nodes for n in (*node.outputs, *node.inputs)} | {p.name for p in self.inputs}
        ports, turns = [], []
        for port in self.inputs:
            batch, *sizes = port.shape or ("",)
            if port.fixed or len(sizes) not in (2, 3, 4) or sizes[0] not in CHANNELS:
                ports.append(port)
                continue
            name = "image" if len(self.inputs) == 1 else f"{port.name}_image"
            while name in taken:
                name += "_"
            taken.add(name)
            rank = len(sizes) - 1
            turns.append(
                Node(f"{name}_in", "Transpose", (name,), (port.name,), (("perm", (0, rank + 1, *range(1, rank + 1))),))
            )
            ports.append(replace(port, name=name, shape=(batch, *sizes[1:], sizes[0])))
        return replace(self, inputs=tuple(ports), nodes=(*turns, *self.nodes)) if turns else self

    def build(self, scope: Scope, *inputs: Value) -> Value:
        made = self.results(scope, *inputs)
        if len(made) != 1:
            raise ShapeError(
                f"{scope.title}: has {len(made)} outputs; as a layer among others it needs one: "
                f"onnx.utils.extract_model makes a file that ends in one of {', '.join(made)}"
            )
        [result] = made.values()
        return result if isinstance(result, Value) else numbers(result)

    def types(self) -> Mapping[str, str]:
        return {p.name: p.dtype for p in self.outputs if p.dtype != "float32"}

    def results(self, scope: Scope, *inputs: Value | np.ndarray) -> dict[str, Value | np.ndarray]:
        """All outputs by name, their dimensions in the file's order, as those of the inputs are.

        Those that follow from shapes and constants alone are numbers.
        """
        if len(inputs) != len(self.inputs):
            raise ShapeError(f"{scope.title}: takes {len(self.inputs)} inputs. Received: {len(inputs)}")
        known: dict[str, Operand] = {c.name: c.array() for c in self.numbers}
        known |= {a.name: a for a in self.arrays}
        for port, x in zip(self.inputs, inputs, strict=True):
            known[port.name] = Tensor.plain(_bare(x), port.dtype) if isinstance(x, Value) else x
        fixed = self.inputs[0].shape[:1] if self.inputs else ()
        given = inputs[0].shape[:1] if inputs else ()
        batches = (int(fixed[0]), given[0]) if fixed and isinstance(fixed[0], int) and fixed != given else None
        for node in self.nodes:
            known |= self._node(scope, node, [_operand(known, name) if name else None for name in node.inputs], batches)
        site = Site(Node("output", "Identity", (), ()), self.opset, scope)
        made: dict[str, Value | np.ndarray] = {}
        for port in self.outputs:
            found = _operand(known, port.name)
            made[port.name] = (
                found if isinstance(found, np.ndarray) else _called(site.tensor(found).in_order(), port.name)
            )
        return made

    def _node(
        self, scope: Scope, node: Node, operands: Sequence[Operand | None], batches: tuple[int, int] | None
    ) -> dict[str, Operand]:
        path = f"{scope.path}.{node.name}" if scope.path else node.name
        inner = Scope(scope.construction, path, set(), scope.depth + 1)
        site = Site(node, self.opset, inner, batches)
        if node.op not in HANDLERS and node.op not in folding.FOLDS:
            raise ShapeError(f"{path}: operator {node.op} is not known; a newer convolve may know it")
        try:
            if all(x is None or isinstance(x, np.ndarray) for x in operands) and node.op in folding.FOLDS:
                made: list[Operand] = list(folding.fold(node, operands))
            elif node.op not in HANDLERS:
                raise ShapeError("its inputs must follow from constants and shapes alone")
            else:
                HANDLERS[node.op].check(operands)
                found = HANDLERS[node.op].build(site, *operands)
                made = [found] if isinstance(found, (Tensor, Stored, np.ndarray)) else list(found)
            for x in () if scope.construction.unlimited else made:
                if isinstance(x, Tensor) and not 0 <= x.value.size <= MOST_ELEMENTS:
                    raise ShapeError(f"makes {x.value.size:,} elements; at most {MOST_ELEMENTS:,} are computed")
        except (ConvolveError, ValueError, IndexError, ArithmeticError) as error:
            # What is no error of ours comes from NumPy: sizes or axes that do not fit each other.
            text = str(error)
            shapes = ", ".join(str(x.shape) for x in operands if x is not None)
            received = "" if "Received: " in text else f". Received: inputs of shape {shapes}"
            kind = type(error) if isinstance(error, ConvolveError) else ShapeError
            raise kind(f"{path}: {node.op}: {text}{received}") from None
        results = {name: x for name, x in zip(node.outputs, made, strict=False) if name}
        rule = "; ".join(site.audit)
        return {name: self._row(scope, inner.path, node, operands, x, rule) for name, x in results.items()}

    def _row(
        self,
        scope: Scope,
        path: str,
        node: Node,
        operands: Sequence[Operand | None],
        made: Operand,
        rule: str,
    ) -> Operand:
        """Note a value for summaries and traces."""
        if not isinstance(made, Tensor):
            return made
        made = replace(made, value=_called(made.value, path))
        read = tuple(x.value for x in operands if isinstance(x, Tensor))
        scope.construction.rows.append(Row(path, Operator(node), read, made.value, scope.depth, rule))
        return made
