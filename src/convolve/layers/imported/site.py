"""Where an operator is built: what its inputs are, how weights become parameters, and the table of all operators."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from inspect import signature

import numpy as np

from convolve import ops
from convolve.errors import ShapeError
from convolve.graph import Shape, Value, constant
from convolve.layers.base import Scope
from convolve.layers.imported import folding
from convolve.layers.imported.graph import Node, Stored
from convolve.layers.imported.tensor import Tensor
from convolve.ops.layout import transpose
from convolve.ops.reduce import reshape_to
from convolve.window import Pads, Window, resolve

Operand = Tensor | Stored | np.ndarray
"""What a name of the file stands for: values computed at run time, a weight, or numbers that are known already."""
MOST_KNOWN = 1 << 20
"""Numbers that are known when the graph is built and go into it, at most: weights are kept elsewhere."""

MOST_PADDING = 1 << 16
"""Positions that a window may have beside its input, on a side."""


@dataclass(frozen=True)
class Layout:
    """How an array of a file lies in the network: each dimension cut into `parts`, these in the order `axes`, `shape`.

    >>> w = np.arange(6).reshape(2, 3)
    >>> Layout(((2,), (3,)), (1, 0), (3, 2)).of(w).tolist()
    [[0, 3], [1, 4], [2, 5]]
    >>> Layout(((2,), (3,)), (1, 0), (3, 2)).undone(np.array([[0, 3], [1, 4], [2, 5]])).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """

    parts: tuple[tuple[int, ...], ...]
    axes: tuple[int, ...]
    shape: Shape

    @classmethod
    def groups(cls, shape: Shape, groups: Sequence[Sequence[int]]) -> Layout:
        """One axis for each group of dimensions."""
        if sorted(d for group in groups for d in group) != list(range(len(shape))):
            raise ShapeError(f"a weight of {len(groups)} dimensions is expected. Received: shape {shape}")
        made = tuple(math.prod(shape[d] for d in group) for group in groups)
        return cls(tuple((n,) for n in shape), tuple(d for group in groups for d in group), made)

    def of(self, array: np.ndarray) -> np.ndarray:
        return self.turned(array).reshape(self.shape)

    def turned(self, array: np.ndarray) -> np.ndarray:
        """A view with the elements in order, but for each part an axis of its own."""
        return array.reshape(tuple(n for part in self.parts for n in part)).transpose(self.axes)

    def undone(self, array: np.ndarray) -> np.ndarray:
        """The file's array again."""
        fine = [n for part in self.parts for n in part]
        moved = array.reshape(tuple(fine[a] for a in self.axes)).transpose(np.argsort(self.axes))
        return moved.reshape(tuple(math.prod(part) for part in self.parts))


@dataclass(frozen=True)
class Origin:
    """Which of a file's arrays an array of the network is, and how it lies."""

    name: str
    layout: Layout


@dataclass
class Site:
    """One operator in the making."""

    node: Node
    opset: int
    scope: Scope
    batches: tuple[int, int] | None = None
    """The batch that the file is made for and the one that comes, where these differ: in training, say."""
    audit: list[str] = field(default_factory=list)
    """What an audit tells of the operator: which rule was applied, and what came of it."""

    # what inputs are

    def tensor(self, x: Operand, what: str = "constant") -> Tensor:
        """An operand as values in the graph."""
        if isinstance(x, Tensor):
            return x
        whole = Layout.groups(x.shape, [(d,) for d in range(len(x.shape))])
        return Tensor.plain(self.laid(x, what, whole, "constant", True), _dtype(x))

    def known(self, x: Operand | None, what: str) -> np.ndarray:
        """Numbers that must be known before anything is computed."""
        if isinstance(x, np.ndarray):
            return x
        raise ShapeError(
            f"its {what} must follow from constants and shapes alone: they decide what the program looks like. "
            f"Received: {'nothing' if x is None else 'values computed at run time'}"
        )

    def integers(self, x: Operand | None, what: str) -> tuple[int, ...]:
        return tuple(int(n) for n in self.known(x, what).ravel())

    def array(
        self, x: Operand, role: str, groups: Sequence[Sequence[int]], kind: str = "parameter", decay: bool = True
    ) -> Value:
        """An operand with one axis for each group of its dimensions; a weight becomes an array of the net."""
        if isinstance(x, Tensor):
            return x.arranged(groups)
        return self.laid(x, role, Layout.groups(x.shape, groups), kind, decay)

    def laid(
        self, x: Stored | np.ndarray, role: str, layout: Layout, kind: str = "parameter", decay: bool = True
    ) -> Value:
        """An array of the file in the given layout."""
        if isinstance(x, np.ndarray):
            return numbers(layout.of(x))
        return self.kept(Origin(x.name, layout), role, kind, decay)

    def kept(self, origin: Origin, role: str, kind: str, decay: bool) -> Value:
        """An array of the network that comes from the file; the same one again where it was asked for before."""
        made = self.scope.construction
        known = made.origins.get(origin)
        if known is not None:
            return made.leaves[known.split(":", 1)[1]]
        number = 2
        name = role
        while f"{self.scope.path}.{name}" in made.leaves:
            name, number = f"{role}{number}", number + 1
        if kind == "parameter":
            shape = origin.layout.shape
            init = {"weight": "he_normal", "scale": "ones"}.get(role, "zeros")
            value = self.scope.parameter(name, shape, init, math.prod(shape[1:]), math.prod(shape[:1]), decay)
        elif kind == "statistic":
            value = self.scope.statistic(name, origin.layout.shape, 0.0)
        else:
            value = self.scope.constant(name, origin.layout.shape)
        made.origins[origin] = f"{kind}:{self.scope.path}.{name}"
        return value

    def bounded(self, shape: Iterable[int]) -> Shape:
        """A shape that is not too large for a value."""
        return folding.bounded(shape, sys.maxsize if self.scope.construction.unlimited else folding.MOST_ELEMENTS)

    # pointwise

    def aligned(self, operands: Sequence[Operand], role: str | None = None) -> tuple[list[Value], Tensor]:
        """Values that broadcast against each other as the file's shapes do, and a tensor laid out as the result.

        `role` names weights among the operands; without, they are constants.
        """
        rank = max(len(x.shape) for x in operands)
        shape = self._broadcast([x.shape for x in operands])
        if not any(isinstance(x, Tensor) for x in operands):
            operands = [self.tensor(operands[0]), *operands[1:]]
        tensors = [x.expanded(rank) if isinstance(x, Tensor) else None for x in operands]
        first = max((i for i, t in enumerate(tensors) if t), key=lambda i: (tensors[i].value.size, -i))  # type: ignore
        leader = tensors[first]
        assert leader is not None
        for d, n in enumerate(shape):
            if n > 1 and leader.shape[d] == 1:
                leader, _ = leader.single(d)
        others: list[Tensor | None] = [None] * len(operands)
        for i, other in enumerate(tensors):
            if other is not None and i != first:
                leader, others[i] = alike(leader, other)
        kind = "parameter" if role else "constant"
        values = []
        for i, x in enumerate(operands):
            other = others[i]
            if i == first:
                values.append(leader.value)
            elif other is not None:
                values.append(_onto(leader, other))
            else:
                assert not isinstance(x, Tensor)
                values.append(self.laid(x, role or "constant", _layout_onto(leader, x.shape), kind, role == "scale"))
        return values, leader

    def _broadcast(self, shapes: Sequence[Shape]) -> Shape:
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ShapeError(
                f"its inputs must broadcast: dimensions are equal or 1, counted from the last. "
                f"Received: {' and '.join(map(str, shapes))}"
            ) from None

    # windows

    def window(self, kernel: Shape, size: Shape) -> Window:
        """The window of a convolution or pool over spatial `size`, its padding explicit."""
        node, rank = self.node, len(size)
        strides = node.integers("strides") or (1,) * rank
        dilations = node.integers("dilations") or (1,) * rank
        rule, padding = self.padding(rank)
        window = resolve(kernel, strides, dilations, padding, size)
        if max((n for pair in window.pads for n in pair), default=0) > MOST_PADDING:
            raise ShapeError(f"pads of {spelled(window.pads)}: at most {MOST_PADDING:,} on a side")
        self.audit.append(f"{rule}: {spelled(window.pads)}")
        return window

    def padding(self, rank: int) -> tuple[str, str | Pads]:
        """The rule of padding that the attributes ask for, and the padding as windows take it."""
        rule = self.node.word("auto_pad", "NOTSET")
        words = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}
        if rule in words:
            return f"auto_pad {rule}", words[rule]
        pads = self.node.integers("pads") or (0,) * 2 * rank
        if rule not in ("NOTSET", "") or len(pads) != 2 * rank:
            raise ShapeError(f"pads need {2 * rank} numbers. Received: auto_pad={rule!r}, pads={pads}")
        return "pads", tuple(zip(pads[:rank], pads[rank:], strict=True))


def spelled(pads: Pads) -> str:
    """Pads as an audit tells them.

    >>> spelled(((1, 1), (0, 1)))
    '1+1 0+1'
    """
    return " ".join(f"{lo}+{hi}" for lo, hi in pads)


def _dtype(x: Stored | np.ndarray) -> str:
    return str(x.dtype) if isinstance(x, np.ndarray) else "float32"


def numbers(array: np.ndarray) -> Value:
    """Numbers that are known, as a value."""
    if not 0 < array.size <= MOST_KNOWN:
        raise ShapeError(f"{array.size:,} numbers come from shapes and constants; from 1 to {MOST_KNOWN:,} may")
    if array.size == 1:
        made = constant(float(array.ravel()[0]))
        return made if array.ndim == 0 else ops.broadcast(made, array.shape)
    return reshape_to(ops.vector(array.ravel().tolist()), array.shape)


def _long(t: Tensor, d: int) -> list[int]:
    """The axes of a dimension; those of size 1 only where there is no other."""
    return [a for a in t.dims[d] if t.value.shape[a] != 1] or list(t.dims[d][:1])


def alike(a: Tensor, b: Tensor, but: int | None = None) -> tuple[Tensor, Tensor]:
    """Both with the same cuts wherever both have the same dimension; `but` is left as it is."""
    for d in range(a.rank):
        if b.shape[d] == 1 or d == but:
            continue
        if a.shape[d] == 1:
            b, _ = b.single(d)
            continue
        sizes = [[t.value.shape[axis] for axis in _long(t, d)] for t in (a, b)]
        parts = a.cuts([d], sizes[1]), b.cuts([d], sizes[0])
        if parts[0] is None or parts[1] is None:
            b, _ = b.single(d)
            parts = {}, b.cuts([d], sizes[0])
        a, b = a.refined(parts[0] or {}), b.refined(parts[1] or {})
    return a, b


def placed(leader: Tensor, other: Tensor, d: int) -> Value:
    """The value of `other`, of another size along dimension d at most, with its axes where the leader's are."""
    other = alike(leader, other, but=d)[1]
    place = dict(zip(leader.dims[d], other.dims[d], strict=True))
    for e in range(leader.rank):
        if e != d and leader.shape[e] != 1:
            place |= dict(zip(_long(leader, e), _long(other, e), strict=True))
    order = [place[a] for a in range(len(leader.value.shape)) if a in place]
    spare = [a for a in range(len(other.value.shape)) if a not in order]
    shape = [other.value.shape[place[a]] if a in place else 1 for a in range(len(leader.value.shape))]
    return reshape_to(transpose(other.value, [*spare, *order]), tuple(shape))


def _onto(leader: Tensor, other: Tensor) -> Value:
    """The value of `other` with an axis for each of the leader's, of size 1 where it is repeated."""
    other = alike(leader, other)[1]
    place: dict[int, int] = {}
    for d in range(leader.rank):
        if other.shape[d] != 1:
            place |= dict(zip(_long(leader, d), _long(other, d), strict=True))
    order = [place[a] for a in range(len(leader.value.shape)) if a in place]
    spare = [a for a in range(len(other.value.shape)) if a not in order]
    moved = transpose(other.value, [*spare, *order])
    shape = [other.value.shape[place[a]] if a in place else 1 for a in range(len(leader.value.shape))]
    return reshape_to(moved, _bare(shape))


def _layout_onto(leader: Tensor, shape: Shape) -> Layout:
    """How an array of the file lies beside the leader's axes."""
    lead = leader.rank - len(shape)
    parts: list[tuple[int, ...]] = []
    place: dict[int, int] = {}
    for d, n in enumerate(shape):
        axes = _long(leader, lead + d)
        first = sum(map(len, parts))
        whole = n != 1 and leader.shape[lead + d] == n
        parts.append(tuple(leader.value.shape[a] for a in axes) if whole else (n,))
        if n != 1:
            place |= {a: first + i for i, a in enumerate(axes)}
    sizes = [n for part in parts for n in part]
    order = [place[a] for a in range(len(leader.value.shape)) if a in place]
    spare = [i for i in range(len(sizes)) if i not in order]
    made = [sizes[place[a]] if a in place else 1 for a in range(len(leader.value.shape))]
    return Layout(tuple(parts), (*spare, *order), _bare(made))


def _bare(shape: Sequence[int]) -> Shape:
    """The shape without the ones in front."""
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return tuple(shape[first:])


# the table

Result = Operand | Sequence[Operand]
Build = Callable[..., Result]


@dataclass(frozen=True)
class Handler:
    """How an operator is built, and what of it is refused."""

    build: Build
    least: int
    most: float
    """How many inputs it takes."""
    known: tuple[int, ...]
    """Inputs that must be known while the net is built."""
    refuses: Callable[[Node], Iterable[str]]

    def check(self, operands: Sequence[Operand | None]) -> None:
        """Refuse too few inputs, or too many."""
        count = len(operands)
        needed = operands if self.most == math.inf else operands[: self.least]
        if not self.least <= count <= self.most or any(x is None for x in needed):
            most = "or more" if self.most == math.inf else f"to {self.most}"
            raise ShapeError(f"takes {self.least} {most} inputs. Received: {sum(x is not None for x in operands)}")


HANDLERS: dict[str, Handler] = {}
"""Operators by name: each is built from its site and its operands, None for an input that is not given."""


def handles(
    *names: str, known: tuple[int, ...] = (), refuses: Callable[[Node], Iterable[str]] = lambda node: ()
) -> Callable[[Build], Build]:
    """Decorator: enter a function as the way operators are built.

    `known` are the inputs that decide what the program looks like; `refuses` says which uses are not supported.
    """

    def enter(build: Build) -> Build:
        _, *given = signature(build).parameters.values()
        several = any(p.kind is p.VAR_POSITIONAL for p in given)
        needed = [p for p in given if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        least, most = max(len(needed), int(several and not needed)), math.inf if several else len(given)
        for name in names:
            HANDLERS[name] = Handler(build, least, most, known, refuses)
        return build

    return enter
