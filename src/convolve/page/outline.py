"""A net as the page draws it: its layers as nodes, what flows between them, what each costs, and what is folded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convolve.graph import Leaf, Shape, Value
from convolve.layers import Row
from convolve.ops.convolution import Convolution, InputGradient
from convolve.view.anatomy import Anatomy, passes
from convolve.view.flow import reads
from convolve.view.summary import multiply_adds

LONG = 24
"""Nets of more nodes are folded at first."""
MOST_PERIOD = 12


@dataclass(frozen=True, eq=False)
class Node:
    """A layer that makes a value of its own: blocks that only hold others are none."""

    path: str
    kind: str
    value: Value
    inputs: tuple[int, ...]
    """Places of the nodes whose values it takes; below 0 stand the net's inputs, the first as -1."""
    parameters: int
    multiply_adds: int
    dense: Dense | None
    product: Value | None
    """The convolution (or the product of a fully-connected layer) that it makes, where it makes one."""

    @property
    def shape(self) -> Shape:
        return self.value.shape[1:]

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "kind": self.kind,
            "shape": self.shape,
            "inputs": self.inputs,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "dense": None if self.dense is None else vars(self.dense),
            "winograd": self.winograd,
        }

    @property
    def winograd(self) -> bool:
        """Whether predictions compute it by Winograd's algorithm, unless they are asked to be exact."""
        if self.product is None or not isinstance(self.product.op, (Convolution, InputGradient)):
            return False
        shapes = [v.shape for v in self.product.inputs]
        return self.product.op.tiling(*shapes, fixed=True) is not None


@dataclass(frozen=True)
class Dense:
    """What a fully-connected layer between the same shapes would take."""

    parameters: int
    multiply_adds: int

    @classmethod
    def between(cls, x: Shape, y: Shape, bias: bool) -> Dense:
        """
        >>> Dense.between((28, 28, 1), (28, 28, 6), bias=True)
        Dense(parameters=3692640, multiply_adds=3687936)
        """
        products = math.prod(x) * math.prod(y)
        return cls(products + (math.prod(y) if bias else 0), products)


@dataclass(frozen=True)
class Fold:
    """Nodes first .. last that are drawn as one, until they are unfolded."""

    first: int
    last: int
    title: str


def nodes(anatomy: Anatomy) -> tuple[Node, ...]:
    """The nodes of a net, each behind those it reads."""
    read = reads(anatomy)
    places = {name: -1 - i for i, name in enumerate(anatomy.inputs)} | {name: i for i, name in enumerate(read)}
    return tuple(_node(anatomy, path, tuple(places[source] for source in sources)) for path, sources in read.items())


def _node(anatomy: Anatomy, path: str, places: tuple[int, ...]) -> Node:
    row = anatomy.rows[path]
    inside = [] if passes(row) else anatomy.own(row)
    learnt = [v for v in inside if isinstance(v.op, Leaf) and v.op.kind == "parameter"]
    products = [v for v in inside if isinstance(v.op, (Convolution, InputGradient))]
    product, dense = None, None
    if len(products) == 1:
        [product] = products
        dense = Dense.between(product.inputs[0].shape[1:], row.output.shape[1:], bias=len(learnt) > 1)
    return Node(
        path,
        row.layer.title(),
        row.output,
        places,
        sum(v.size for v in learnt),
        sum(multiply_adds(v) for v in inside),
        dense,
        product,
    )


def folds(found: Sequence[Node], rows: Sequence[Row]) -> tuple[Fold, ...]:
    """What is folded of a long net: its blocks; without any, what branches, and runs of layers that come again."""
    if len(found) <= LONG:
        return ()
    ranges = _blocks(found, rows)
    if sum(end - first for first, end, _ in ranges) < len(found) / 2:
        ranges = _recurring(found)
    return tuple(Fold(first, end - 1, title) for first, end, title in ranges if end - first > 1)


def _blocks(found: Sequence[Node], rows: Sequence[Row]) -> list[tuple[int, int, str]]:
    """The outermost blocks that layers were put into, each with the activation behind it: (first, end, name)."""
    made: list[tuple[int, int, str]] = []
    for row in rows:
        inner = [i for i, n in enumerate(found) if n.path == row.path or n.path.startswith(f"{row.path}.")]
        if row.depth == 0 and len(inner) > 1:
            end = inner[-1] + 1
            while end < len(found) and _only_follows(found, end):
                end += 1
            made.append((inner[0], end, row.path))
    return made


def _only_follows(found: Sequence[Node], place: int) -> bool:
    """Whether a node changes the value before it pointwise, and nobody else reads that."""
    node, before = found[place], found[place - 1]
    readers = sum(place - 1 in n.inputs for n in found)
    plain = node.parameters == node.multiply_adds == 0 and node.shape == before.shape
    return plain and node.inputs == (place - 1,) and readers == 1


def _recurring(found: Sequence[Node]) -> list[tuple[int, int, str]]:
    """Parts that come again and again, and parts with branches: (first, end, name)."""
    parts = _parts(found)
    kinds = [tuple((found[i].kind, *(i - j for j in found[i].inputs)) for i in range(*part)) for part in parts]
    made = []
    at = 0
    while at < len(parts):
        period, times = _repeated(kinds, at)
        if times > 1:
            made += [(parts[at + n * period][0], parts[at + (n + 1) * period - 1][1]) for n in range(times)]
        else:
            made.append(parts[at])
        at += period * times
    return [(first, end, f"{found[first].path} to {found[end - 1].path}") for first, end in made if end - first <= LONG]


def _parts(found: Sequence[Node]) -> list[tuple[int, int]]:
    """The net cut wherever one value alone is passed on: (first, end) of each part."""
    last_use = list(range(len(found)))
    for i, node in enumerate(found):
        for j in node.inputs:
            if j >= 0:
                last_use[j] = i
    parts, first, alive = [], 0, 0
    for i in range(len(found)):
        if alive <= i:
            parts.append((first, i + 1))
            first = i + 1
        alive = max(alive, last_use[i])
    return parts


def _repeated(kinds: Sequence[object], at: int) -> tuple[int, int]:
    """How many parts from `at` on come again, and how often: as many parts as possible, in short periods."""
    best = (1, 1)
    for period in range(1, MOST_PERIOD + 1):
        times = 1
        while kinds[at : at + period] == kinds[at + times * period : at + (times + 1) * period]:
            times += 1
            if at + times * period > len(kinds):
                break
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best
