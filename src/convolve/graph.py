"""Graphs: values, the ops that make them, and derivatives.

A graph is a set of `Value`s that know their op, inputs and concrete shape (batch first, channels last). Ops come from
a small closed set: each is one file of `convolve.ops` and registers itself here, which is also what files may name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from convolve.errors import ShapeError

Shape = tuple[int, ...]


class Op:
    """Base of all ops. A subclass is a frozen dataclass whose fields are the op's attributes."""

    name: ClassVar[str]
    arity: ClassVar[int | None] = None
    """Number of inputs, where it is fixed."""

    def shape(self, *inputs: Shape) -> Shape:
        """Shape of the result; raises `ShapeError` where the inputs do not fit."""
        raise NotImplementedError

    def dtype(self, *inputs: str) -> str:
        """Element type of the result: "f4" unless an op says otherwise."""
        return "f4"

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        """The definition, in plain NumPy and in the inputs' precision."""
        raise NotImplementedError

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        """Gradients of the inputs of `y`, in ops, given that of `y`; None where there is none."""
        raise NotImplementedError

    def attributes(self) -> dict[str, Any]:
        """Fields as JSON can hold them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


OPS: dict[str, type[Op]] = {}
"""All ops by name: the closed vocabulary."""


def register(cls: type[Op]) -> type[Op]:
    """Class decorator: enter an op into the vocabulary."""
    OPS[cls.name] = cls
    return cls


_serial = itertools.count()


@dataclass(frozen=True, eq=False)
class Value:
    """The result of an op: what flows along an edge of the graph."""

    op: Op
    inputs: tuple[Value, ...]
    shape: Shape
    dtype: str = "f4"
    label: str = ""
    serial: int = field(default_factory=lambda: next(_serial))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __repr__(self) -> str:
        return f"%{self.serial} = {self.op!r}({', '.join(f'%{v.serial}' for v in self.inputs)}): {self.shape}"

    def _with(self, name: str, other: Value | float, swap: bool = False) -> Value:
        pair = (self, constant(other))
        return apply(OPS["pointwise"](name), *(reversed(pair) if swap else pair))  # type: ignore[call-arg]

    def __add__(self, other: Value | float) -> Value:
        return self._with("add", other)

    __radd__ = __add__

    def __sub__(self, other: Value | float) -> Value:
        return self._with("subtract", other)

    def __rsub__(self, other: Value | float) -> Value:
        return self._with("subtract", other, swap=True)

    def __mul__(self, other: Value | float) -> Value:
        return self._with("multiply", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Value | float) -> Value:
        return self._with("divide", other)

    def __rtruediv__(self, other: Value | float) -> Value:
        return self._with("divide", other, swap=True)

    def __neg__(self) -> Value:
        return apply(OPS["pointwise"]("negative"), self)  # type: ignore[call-arg]


@register
@dataclass(frozen=True)
class Leaf(Op):
    """A value from outside: an input, a parameter, a statistic, an optimizer's state, a number of the step."""

    name: ClassVar[str] = "leaf"
    arity: ClassVar[int | None] = 0
    kind: str
    key: str

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return ()


@register
@dataclass(frozen=True)
class Constant(Op):
    """A number known when the graph is built."""

    name: ClassVar[str] = "constant"
    arity: ClassVar[int | None] = 0
    value: float

    def shape(self, *inputs: Shape) -> Shape:
        return ()

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        return np.asarray(self.value)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        return ()


def apply(op: Op, *inputs: Value, label: str = "") -> Value:
    """The value of `op` over `inputs`, its shape inferred."""
    if op.arity is not None and len(inputs) != op.arity:
        raise ShapeError(f"{op.name} takes {op.arity} values. Received: {len(inputs)}")
    shape = op.shape(*(v.shape for v in inputs))
    return Value(op, inputs, shape, op.dtype(*(v.dtype for v in inputs)), label)


def leaf(kind: str, key: str, shape: Shape, dtype: str = "f4") -> Value:
    return Value(Leaf(kind, key), (), shape, dtype, key)


def constant(value: Value | float) -> Value:
    """A number as a value; values pass through."""
    return value if isinstance(value, Value) else apply(Constant(float(value)))


@dataclass
class Graph:
    """What a program is to compute: named results, and leaves that take a new value at the end."""

    outputs: dict[str, Value]
    updates: list[tuple[Value, Value]] = field(default_factory=list)
    prediction: bool = False
    """Whether parameters stay as they are over many runs, so that what is made of them alone is made once."""

    @property
    def roots(self) -> list[Value]:
        return [*self.outputs.values(), *(v for _, v in self.updates)]

    def values(self) -> list[Value]:
        """All values the graph needs, inputs before their users."""
        return topological(self.roots)


def topological(roots: Iterable[Value]) -> list[Value]:
    """Every value that `roots` depend on, in order of creation, which is a topological order."""
    seen: dict[int, Value] = {}
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value.serial not in seen:
            seen[value.serial] = value
            stack.extend(value.inputs)
    return [seen[s] for s in sorted(seen)]


def rewrite(graph: Graph, rule: Callable[[Value, tuple[Value, ...]], Value | None]) -> Graph:
    """Rebuild the graph bottom up. `rule(old, new inputs)` gives a replacement, or None to keep the op."""
    made: dict[int, Value] = {}
    for value in graph.values():
        inputs = tuple(made[v.serial] for v in value.inputs)
        new = rule(value, inputs)
        if new is None:
            same = all(a is b for a, b in zip(inputs, value.inputs, strict=True))
            new = value if same else Value(value.op, inputs, value.shape, value.dtype, value.label)
        made[value.serial] = new
    return Graph(
        {name: made[v.serial] for name, v in graph.outputs.items()},
        [(made.get(target.serial, target), made[v.serial]) for target, v in graph.updates],
        graph.prediction,
    )


def differentiate(loss: Value, leaves: Sequence[Value]) -> list[Value]:
    """Reverse-mode derivatives of the scalar `loss` by each of `leaves`.

    Walks the values backwards once; each op says what its inputs receive (Griewank and Walther, 2008, section 3.2).

    Raises:
        ShapeError: the loss is not a scalar.
    """
    if loss.shape != ():
        raise ShapeError(
            f"a loss must be one number a batch. Received: a value of shape {loss.shape}; take ops.mean of it"
        )
    order = topological([loss])
    wanted = {v.serial for v in leaves}
    needed: set[int] = set()
    for value in order:
        if value.serial in wanted or any(v.serial in needed for v in value.inputs):
            needed.add(value.serial)
    gradients: dict[int, Value] = {loss.serial: constant(1.0)}
    for value in reversed(order):
        dy = gradients.get(value.serial)
        if dy is None or value.serial not in needed or not value.inputs:
            continue
        for source, received in zip(value.inputs, value.op.gradient(value, dy), strict=True):
            if received is None or source.serial not in needed:
                continue
            known = gradients.get(source.serial)
            total = received if known is None else known + received
            named = source.label and total.inputs and not total.label
            gradients[source.serial] = replace(total, label=f"d {source.label}") if named else total
    return [gradients[v.serial] if v.serial in gradients else zeros_like(v) for v in leaves]


def zeros_like(value: Value) -> Value:
    return value * 0.0


def evaluate(roots: Sequence[Value], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Compute values by the ops' plain references; `feeds` gives the leaves by key.

    >>> from convolve import ops
    >>> x = leaf("input", "x", (2,))
    >>> evaluate([x + 1.0], {"x": np.array([1.0, 2.0])})
    [array([2., 3.])]
    """
    known: dict[int, np.ndarray] = {}
    for value in topological(roots):
        if isinstance(value.op, Leaf):
            known[value.serial] = feeds[value.op.key]
        else:
            known[value.serial] = value.op.reference(*(known[v.serial] for v in value.inputs))
    return [known[v.serial] for v in roots]
