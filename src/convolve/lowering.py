"""From values to kernel calls: buffers, spaces, and how work is cut into pieces.

A `Group` is what becomes one step: an anchor op with a formula fused to it, or a formula alone. Everything here is
decided from shapes, so that a program's sums never depend on the machine or on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convolve.graph import Constant, Leaf, Value
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.layout import Fill, Repack
from convolve.native.kernels.pointwise import Pointwise
from convolve.native.target import PANEL
from convolve.program import Argument, At, Buffer, Call, Memory, packed, padded, row_major
from convolve.window import Pads

GRAIN = 8192
"""Elements of a sweep that are worth a piece of their own."""
MOST_PIECES = 128
Step = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Steps over `inputs`, whose results `outputs` are stored; with an anchor, its result is one of the inputs.

    For a reduction the order is turned round: the formula computes what the anchor reduces.
    """

    anchor: Value | None
    inputs: tuple[Value, ...] = ()
    steps: tuple[Step, ...] = ()
    results: tuple[int, ...] = ()
    outputs: tuple[Value, ...] = ()
    pooled: bool = False
    """Whether the output is the maximum of each window of the result, which is not stored itself."""


@dataclass(frozen=True)
class Space:
    """A sweep: segments from tables, `mid` rows each, `inner` elements a row; operand strides a row and along it."""

    segments: int
    mid: int
    last_mid: int
    inner: int
    last_inner: int
    tables: tuple[np.ndarray, ...]
    row: tuple[int, ...]
    along: tuple[int, ...]

    @property
    def arguments(self) -> dict[str, Argument]:
        return {
            "segments": self.segments,
            "mid": self.mid,
            "last_mid": self.last_mid,
            "inner": self.inner,
            "last_inner": self.last_inner,
        }

    @property
    def size(self) -> int:
        return self.segments * self.mid * self.inner

    @property
    def pieces(self) -> int:
        return max(1, min(self.segments, self.size // GRAIN, MOST_PIECES))


def aligned_strides(buffer: Buffer, shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of `buffer` broadcast to `shape`: zero where it is repeated."""
    lead = len(shape) - len(buffer.shape)
    own = [0 if n == 1 and m != 1 else s for n, s, m in zip(buffer.shape, buffer.strides, shape[lead:], strict=True)]
    return (0,) * lead + tuple(own)


def merged(sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, tuple[int, ...]]]:
    """Dimensions with neighbours joined wherever all operands walk through both in one stride."""
    result: list[tuple[int, tuple[int, ...]]] = []
    for size, steps in zip(sizes, zip(*strides, strict=True), strict=True):
        if size == 1:
            continue
        if result and all(a == size * b for a, b in zip(result[-1][1], steps, strict=True)):
            result[-1] = (result[-1][0] * size, steps)
        else:
            result.append((size, steps))
    return result


def sweep(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> Space:
    """The space for operands with `strides` over `shape`: as few and as long rows as their layouts allow."""
    count = len(strides)
    dims = merged(shape, strides)
    if not dims or any(s not in (0, 1) for s in dims[-1][1]):
        dims.append((1, (0,) * (count - 1) + (1,)))
    (inner, along), outer = dims[-1], dims[:-1]
    if not outer and inner > GRAIN:
        parts = -(-inner // GRAIN)
        tables = tuple(np.arange(parts) * GRAIN * s for s in along)
        return Space(parts, 1, 1, GRAIN, inner - (parts - 1) * GRAIN, tables, (0,) * count, along)
    mid, row = outer[-1] if outer else (1, (0,) * count)
    if len(outer) == 1 and mid * inner > GRAIN:
        part = max(1, GRAIN // inner)
        parts = -(-mid // part)
        tables = tuple(np.arange(parts) * part * s for s in row)
        return Space(parts, part, mid - (parts - 1) * part, inner, inner, tables, row, along)
    sizes = [n for n, _ in outer[:-1]]
    tables = tuple(offsets(sizes, [steps[i] for _, steps in outer[:-1]]) for i in range(count))
    return Space(math.prod(sizes), mid, mid, inner, inner, tables, row, along)


def offsets(sizes: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Offset of every index of a box, last dimension fastest (int64).

    >>> offsets((2, 3), (10, 1))
    array([ 0,  1,  2, 10, 11, 12])
    """
    table = np.zeros(1, np.int64)
    for n, step in zip(sizes, strides, strict=True):
        table = (table[:, None] + np.arange(n) * step).ravel()
    return table


def table(values: np.ndarray | Iterable[int]) -> np.ndarray:
    """Offsets as kernels read them. They are relative to one image or segment, so 32 bits serve."""
    wide = np.ascontiguousarray(values)
    if wide.size and (wide.max() >= 2**31 or wide.min() < -(2**31)):
        raise OverflowError(f"an offset of {wide.max()} elements does not fit the kernels' 32-bit tables")
    return wide.astype(np.int32)


@dataclass
class Lowering:
    """What has been lowered so far: a buffer for each value, and the calls that fill them."""

    pads: Mapping[int, Pads] = field(default_factory=dict)
    weights: Mapping[int, int] = field(default_factory=dict)
    """Serials of the values that lie in filter panels, and how many groups of filters they have."""
    parts: Mapping[int, tuple[Value, int, int]] = field(default_factory=dict)
    """Values that are computed where they belong in a concatenation: which, along which axis, from where on."""
    folded: Mapping[int, Value] = field(default_factory=dict)
    """Values that are computed where another lies, whose last dimension is theirs from there on in one."""
    targets: Mapping[int, Buffer] = field(default_factory=dict)
    stores: dict[str, Buffer] = field(default_factory=dict)
    buffers: dict[int, Buffer] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    converted: dict[tuple[int, str], Buffer] = field(default_factory=dict)
    label: str = ""
    exact: bool = False
    """Whether convolutions are computed as they are defined, never by Winograd's algorithm."""
    fixed: bool = False
    """Whether parameters stay as they are, so that what is made of them is made once, for many runs."""

    def call(
        self,
        spec: Any,
        arguments: Mapping[str, Argument],
        pieces: int,
        writes: Buffer | Memory,
        algorithm: str,
        flops: int = 0,
        scratch: int = 0,
        disjoint: bool = False,
    ) -> None:
        """Append a call; its arguments are checked against the kernel's. `scratch` is in floats, a thread."""
        declared = {a.split(":")[0] for a in spec.arguments}
        if declared != set(arguments):
            raise TypeError(f"{spec}: arguments {sorted(declared ^ set(arguments))} are missing or unknown")
        memory = writes.memory if isinstance(writes, Buffer) else writes
        self.calls.append(Call(spec, arguments, pieces, (memory,), self.label, algorithm, flops, 4 * scratch, disjoint))

    def leaf(self, value: Value) -> Buffer:
        """Where a leaf lies: in the caller's array for an input, else in a store between runs."""
        op = value.op
        assert isinstance(op, Leaf)
        key = f"{op.kind}:{op.key}"
        if key not in self.stores:
            if op.kind == "input":
                memory = Memory(op.key, value.size, value.dtype, "input")
                made = Buffer(memory, value.shape, row_major(value.shape))
            elif value.serial in self.weights:
                made = packed(op.key, value.shape, self.weights[value.serial], "store")
            else:
                made = Buffer(Memory(op.key, value.size, "f4", "store"), value.shape, row_major(value.shape))
            self.stores[key] = made
        return self.stores[key]

    def buffer(self, value: Value) -> Buffer:
        """The buffer of a value that has been lowered."""
        if value.serial not in self.buffers:
            if isinstance(value.op, Constant):
                self.pointwise((), [value.op.value], [self.result(value)], (0,), "constant")
            else:
                self.buffers[value.serial] = self.leaf(value)
        return self.buffers[value.serial]

    def alias(self, value: Value, buffer: Buffer) -> None:
        """Let a value be a view of another's memory; copied where it must land in a leaf."""
        if value.serial in self.targets:
            self.copy(buffer, self.result(value))
        else:
            self.buffers[value.serial] = buffer

    def plain(self, value: Value) -> Buffer:
        """The value's buffer with its elements in strides: a packed weight is unpacked once."""
        buffer = self.buffer(value)
        return self._repacked(value, buffer, 0) if buffer.panels else buffer

    def panels(self, value: Value, groups: int = 1) -> Buffer:
        """A weight's buffer in filter panels, those of each group apart: a plain one is packed once."""
        buffer = self.buffer(value)
        return buffer if buffer.panels == groups else self._repacked(value, self.compact(value), groups)

    def _repacked(self, value: Value, source: Buffer, groups: int) -> Buffer:
        """A weight's copy in the panels of so many groups, or plain for none."""
        key = (value.serial, f"panels {groups}" if groups else "plain")
        if key not in self.converted:
            name = f"{value.label or value.serial}.{key[1]}"
            target = packed(name, value.shape, groups) if groups else self._contiguous(name, value.shape)
            there = groups or source.panels
            pieces = max(1, min(MOST_PIECES, value.size // GRAIN))
            self.call(
                Repack(packing=bool(groups)),
                {
                    "x": At(source.memory, source.start),
                    "y": At(target.memory),
                    "rest": math.prod(value.shape[1:]),
                    "filters": value.shape[0] // there,
                    "groups": there,
                    "pieces": pieces,
                },
                pieces,
                target,
                "pack" if groups else "unpack",
            )
            self.converted[key] = target
        return self.converted[key]

    def compact(self, value: Value) -> Buffer:
        """The value's buffer with its elements in order and no gaps; copied where it has margins."""
        buffer = self.plain(value)
        if buffer.contiguous:
            return buffer
        key = (value.serial, "compact")
        if key not in self.converted:
            self.converted[key] = self._contiguous(f"{value.label or value.serial}.compact", value.shape)
            self.copy(buffer, self.converted[key])
        return self.converted[key]

    def _contiguous(self, name: str, shape: tuple[int, ...]) -> Buffer:
        return Buffer(Memory(name, math.prod(shape)), shape, row_major(shape))

    def result(self, value: Value) -> Buffer:
        """A fresh buffer for a value, its margins zeroed; an updated leaf's own."""
        if value.serial in self.targets:
            made = self.targets[value.serial]
        else:
            name = value.label or f"{value.op.name}{value.serial}"
            if value.serial in self.weights:
                made = packed(name, value.shape, self.weights[value.serial])
            elif value.serial in self.parts:
                whole, axis, at = self.parts[value.serial]
                made = self.whole(whole).part(value.shape, axis, at)
            elif value.serial in self.folded:
                made = self.whole(self.folded[value.serial]).unfolded(value.shape)
            else:
                made = padded(name, value.shape, self.pads.get(value.serial, ()))
                if any(p for pair in made.pads for p in pair):
                    self.clear_margins(made)
        self.buffers[value.serial] = made
        return made

    def whole(self, value: Value) -> Buffer:
        """The buffer of a value that others are computed in: made when the first of them is."""
        return self.buffers.get(value.serial) or self.result(value)

    def margined(self, value: Value, pads: Pads) -> Buffer:
        """The value's buffer with margins of at least `pads`; copied where its own are narrower."""
        buffer = self.plain(value)
        own = buffer.pads or ((0, 0),) * len(pads)
        if all(a >= lo and b >= hi for (a, b), (lo, hi) in zip(own, pads, strict=True)):
            return buffer
        key = (value.serial, "margined")
        if key not in self.converted:
            made = padded(f"{value.label or value.serial}.margined", value.shape, self.pads.get(value.serial, pads))
            self.clear_margins(made)
            self.copy(buffer, made)
            self.converted[key] = made
        return self.converted[key]

    def write_compact(self, value: Value, write: Callable[[Buffer], None]) -> None:
        """Let `write` fill the value's elements in order without gaps; copied where the value has margins."""
        result = self.result(value)
        if result.contiguous:
            write(result)
        else:
            made = self._contiguous(f"{value.label or value.serial}.compact", value.shape)
            write(made)
            self.copy(made, result)

    def temporary(self, name: str, size: int) -> Memory:
        return Memory(name, size)

    def clear_margins(self, buffer: Buffer) -> None:
        """Zero a buffer's margins, image by image."""
        inside = np.zeros(_padded_sizes(buffer), bool)
        inside[tuple(slice(lo, lo + n) for (lo, _), n in zip(buffer.pads, buffer.shape[1:-1], strict=True))] = True
        flat = np.concatenate([[True], inside.ravel(), [True]])
        edges = np.flatnonzero(np.diff(flat))
        first, last = edges[0::2], edges[1::2]
        self.fill(buffer, np.stack([first, last - first], 1) * buffer.shape[-1], 0.0, "margins")

    def clear(self, buffer: Buffer) -> None:
        """Zero a whole buffer, margins and all."""
        self.fill(buffer, np.array([[0, buffer.memory.size // buffer.shape[0]]]), 0.0, "zero")

    def fill(self, buffer: Buffer, runs: np.ndarray, value: float, algorithm: str, disjoint: bool = False) -> None:
        """Put a number in the runs (offset in memory, length) of each image."""
        arguments: dict[str, Argument] = {
            "y": At(buffer.memory),
            "image": buffer.strides[0],
            "run": table(runs),
            "runs": len(runs),
            "value": value,
        }
        self.call(Fill(), arguments, buffer.shape[0], buffer, algorithm, disjoint=disjoint)

    def copy(self, source: Buffer, target: Buffer, disjoint: bool = False) -> None:
        """Copy elements between buffers of one shape."""
        self.pointwise((), [source], [target], (0,), "copy", disjoint)

    def pointwise(
        self,
        steps: tuple[Step, ...],
        inputs: Sequence[Buffer | float],
        outputs: Sequence[Buffer],
        results: tuple[int, ...],
        algorithm: str = "sweep",
        disjoint: bool = False,
    ) -> None:
        """One sweep of a formula over buffers; numbers among the inputs are constants."""
        everything = [b for b in (*inputs, *outputs) if isinstance(b, Buffer)]
        if all(b.panels or not b.shape for b in everything) and any(b.panels for b in everything):
            everything = [flat(b) for b in everything]
        shape = everything[-1].shape
        space = sweep(shape, [aligned_strides(b, shape) for b in everything])
        kinds, arguments = operands(inputs, space, everything)
        spec = Pointwise(Formula(kinds, steps, results))
        for i, buffer in enumerate(everything[len(everything) - len(outputs) :]):
            arguments[f"out{i}"] = At(buffer.memory, buffer.start)
            place = len(everything) - len(outputs) + i
            arguments[f"out{i}_table"] = table(space.tables[place])
            arguments[f"out{i}_row"] = space.row[place]
        arguments |= space.arguments | {"pieces": space.pieces}
        label = self.label
        declared = {a.split(":")[0] for a in spec.arguments}
        assert declared == set(arguments), declared ^ set(arguments)
        memories = tuple(b.memory for b in outputs)
        flops = space.size * len(steps)
        self.calls.append(Call(spec, arguments, space.pieces, memories, label, algorithm, flops, disjoint=disjoint))


def operands(
    inputs: Sequence[Buffer | float], space: Space, buffers: Sequence[Buffer]
) -> tuple[tuple[str, ...], dict[str, Argument]]:
    """Kinds and arguments of a formula's inputs over a space; `buffers` are its operands in the space's order."""
    kinds: list[str] = []
    arguments: dict[str, Argument] = {}
    place = 0
    for i, source in enumerate(inputs):
        if not isinstance(source, Buffer):
            kinds.append("constant")
            arguments[f"in{i}"] = float(source)
            continue
        buffer = buffers[place]
        kinds.append(f"{'vector' if space.along[place] else 'scalar'}:{buffer.memory.dtype}")
        arguments[f"in{i}"] = At(buffer.memory, buffer.start)
        arguments[f"in{i}_table"] = table(space.tables[place])
        arguments[f"in{i}_row"] = space.row[place]
        place += 1
    return tuple(kinds), arguments


def epilogue_inputs(group: Group, low: Lowering, column: int = 0) -> tuple[tuple[str, ...], dict[str, Argument]]:
    """Kinds and addresses of an epilogue's inputs: the product itself, numbers, one value a channel, whole values.

    `column` is the first of the product's columns that the call computes.
    """
    kinds: list[str] = []
    arguments: dict[str, Argument] = {}
    for i, value in enumerate(group.inputs):
        if value is group.anchor:
            kinds.append("sum")
        elif isinstance(value.op, Constant):
            kinds.append("constant")
            arguments[f"in{i}"] = value.op.value
        else:
            buffer = low.plain(value)
            kinds.append("channel" if len(value.shape) == 1 else "vector:f4")
            arguments[f"in{i}"] = At(buffer.memory, buffer.start + column)
    return tuple(kinds), arguments


def constants_or_buffers(low: Lowering, inputs: Sequence[Value]) -> list[Buffer | float]:
    """Each input as a number, where it is one, or as its buffer."""
    return [v.op.value if isinstance(v.op, Constant) else low.plain(v) for v in inputs]


def flat(buffer: Buffer) -> Buffer:
    """A packed buffer as the vector it is in memory; scalars stay."""
    if not buffer.panels:
        return buffer
    return replace(buffer, shape=(buffer.memory.size,), strides=(1,), panels=0)


def _padded_sizes(buffer: Buffer) -> tuple[int, ...]:
    return tuple(n + lo + hi for n, (lo, hi) in zip(buffer.shape[1:-1], buffer.pads, strict=True))


def panel_count(columns: int) -> int:
    return -(-columns // PANEL)
