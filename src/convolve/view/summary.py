"""What a net is made of and what it costs, counted from its graph of ops: nothing is run.

A receptive field is found by passing intervals along the ops, from the input to each value (Araujo, Norris and Sim,
"Computing receptive fields of convolutional neural networks", Distill, 2019): each position of a value sees the input's
positions from one to another, which may reach beyond the image into its padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from convolve import layers
from convolve.graph import Leaf, Shape, Value, topological
from convolve.network import Forward, build
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.dropout import Dropout
from convolve.ops.layout import Concat, Slice, Transpose
from convolve.ops.pointwise import Broadcast, Pointwise
from convolve.ops.pool import Pool
from convolve.ops.reduce import Reduce, Reshape
from convolve.ops.resample import PADDINGS, Map, Resample
from convolve.ops.softmax import Softmax
from convolve.view.text import amount, by, megabytes, table
from convolve.window import Pads, Window

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Row:
    """A layer, for one sample. A block's counts are those of the layers in it."""

    path: str
    kind: str
    depth: int
    output_shape: Shape
    pads: Pads | None
    """Padding at each end of each dimension, where the layer slides a window or pads."""
    unread: tuple[int, ...] | None
    """Input positions that no window covers, per dimension: behind the last window, or between windows far apart."""
    parameters: int
    multiply_adds: int
    receptive_field: tuple[int, ...]
    """Input positions that one of the outputs may depend on, per spatial dimension of the input."""
    rule: str
    """Where the padding comes from: the layer's or the file's rule, and what came of it."""


@dataclass(frozen=True)
class Summary:
    """A net's layers and totals. Prints as a table.

    >>> from convolve import Conv, Dense, Flatten, MaxPool, Model, ReLU, Sequential
    >>> net = Sequential(Conv(8, 3), ReLU(), MaxPool(2), Flatten(), Dense(10))
    >>> Model(net, input_shape=(28, 28, 1)).summary()
    layer                    output  pads  parameters  multiply-adds     sees
    -------------------------------------------------------------------------
    conv1      Conv     28 x 28 x 8     1          80         56,448    3 x 3
    relu1      ReLU     28 x 28 x 8                                     3 x 3
    max_pool1  MaxPool  14 x 14 x 8     0                               4 x 4
    flatten1   Flatten         1568                                     4 x 4
    dense1     Dense             10            15,690         15,680  30 x 30
    -------------------------------------------------------------------------
    15,770 parameters (0.06 MB); a sample takes 72,128 multiply-adds and 0.06 MB of activations
    """

    input_shape: Shape
    rows: tuple[Row, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int
    """What the outputs of all layers take for one sample.

    A view of another's (`Flatten`) takes nothing, what is concatenated lies in the concatenation.
    """

    audit: bool = False
    """Whether it prints the rules."""

    @property
    def parameter_bytes(self) -> int:
        return self.parameters * FLOAT

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self) | {"parameter_bytes": self.parameter_bytes}

    def __str__(self) -> str:
        heads: tuple[str, ...] = ("layer", "", "output", "pads", "unread", "parameters", "multiply-adds", "sees")
        cells = [_cells(name, row) for name, row in zip(self._names(), self.rows, strict=True)]
        if self.audit:
            heads = (*heads[:2], "rule", *heads[2:])
            cells = [(*c[:2], row.rule, *c[2:]) for c, row in zip(cells, self.rows, strict=True)]
        text = table(heads, cells, left=3 if self.audit else 2)
        rule = text.splitlines()[1]
        total = (
            f"{self.parameters:,} parameters ({megabytes(self.parameter_bytes)}); a sample takes "
            f"{self.multiply_adds:,} multiply-adds and {megabytes(self.activation_bytes)} of activations"
        )
        return f"{text}\n{rule}\n{total}"

    __repr__ = __str__

    def _names(self) -> list[str]:
        """The rows' names, without those of the blocks around them."""
        around: list[str] = []
        names = []
        for row in self.rows:
            around = around[: row.depth]
            prefix = f"{around[-1]}." if around and around[-1] else ""
            names.append("  " * row.depth + row.path.removeprefix(prefix))
            around += [""] * (row.depth - len(around)) + [row.path]
        return names


def _cells(name: str, row: Row) -> tuple[str, ...]:
    pads = [f"{lo}" if lo == hi else f"{lo}+{hi}" for lo, hi in row.pads or ()]
    same = len(set(pads)) == 1
    return (
        name,
        row.kind,
        by(row.output_shape),
        pads[0] if same else ", ".join(pads),
        by(row.unread) if row.unread and any(row.unread) else "",
        amount(row.parameters),
        amount(row.multiply_adds),
        by(row.receptive_field),
    )


def summarise(net: layers.Layer, input_shape: Shape | None, audit: bool = False) -> Summary:
    """Count what every layer of a net has and does for one sample; with `audit` it prints rules of padding, too.

    Raises:
        ShapeError: a layer does not suit its input; the message names it.
    """
    built = build(net, input_shape, 1)
    fields = receptive_fields(entry(built), built.output)
    rows = tuple(described(row, fields) for row in built.construction.rows)
    everything = topological([built.output])
    return Summary(
        input_shape=built.input.shape[1:],
        rows=rows,
        parameters=_parameters(everything),
        multiply_adds=sum(multiply_adds(v) for v in everything),
        activation_bytes=_activations(built.construction.rows),
        audit=audit,
    )


def entry(built: Forward, number: int = 0) -> Value:
    """An input as channels last: an imported net may bring it to that first."""
    users: dict[int, list[Value]] = {}
    for value in topological(built.outputs.values()):
        for source in value.inputs:
            users.setdefault(source.serial, []).append(value)
    x = built.inputs[number]
    while len(users.get(x.serial, ())) == 1:
        [user] = users[x.serial]
        if not (isinstance(user.op, (Transpose, Reshape)) or user.op == Pointwise("cast")):
            break
        x = user
    return x if len(x.shape) >= 3 else built.inputs[number]


def described(row: layers.Row, fields: Mapping[int, Field]) -> Row:
    """A layer that was built; `fields` are receptive fields by the values' serials."""
    inside = _between(row.inputs, row.output)
    windows = [(v.op.window, v.inputs[0].shape[1:-1]) for v in inside if isinstance(v.op, (Convolution, Pool))]
    single = len(windows) == 1 and windows[0][0].rank > 0
    pads = [w.pads for w, _ in windows] + [v.op.pads for v in inside if isinstance(v.op, Resample) and v.op.pads]
    return Row(
        path=row.path,
        kind=row.layer.title(),
        depth=row.depth,
        output_shape=row.output.shape[1:],
        pads=pads[0] or None if len(pads) == 1 else None,
        unread=_unread(*windows[0]) if single else None,
        parameters=_parameters(inside),
        multiply_adds=sum(multiply_adds(v) for v in inside),
        receptive_field=tuple(i.size for i in fields.get(row.output.serial, ())),
        rule=row.rule or _rule(row.layer),
    )


def _rule(layer: layers.Layer) -> str:
    """The rule of padding as a person wrote it."""
    given = [(name, getattr(layer, name)) for name in ("padding", "ceil_mode", "count_padding") if hasattr(layer, name)]
    return ", ".join(f"{name}={value!r}" for name, value in given if value is not False)


def _unread(window: Window, size: tuple[int, ...]) -> tuple[int, ...]:
    """
    >>> _unread(Window((2, 1), (2, 2), (1, 1), ((0, 0), (0, 0))), (7, 8))
    (1, 4)
    """
    return tuple(int((count == 0).sum()) for _, count, _ in window.readers(size))


def _between(inputs: Sequence[Value], output: Value) -> list[Value]:
    """The values that a layer made on the way from its inputs to its output."""
    seen = {v.serial for v in inputs}
    found: list[Value] = []
    stack = [output]
    while stack:
        value = stack.pop()
        if value.serial not in seen:
            seen.add(value.serial)
            found.append(value)
            stack.extend(value.inputs)
    return found


def _parameters(values: Sequence[Value]) -> int:
    return sum(v.size for v in values if isinstance(v.op, Leaf) and v.op.kind == "parameter")


def _activations(rows: Sequence[layers.Row]) -> int:
    """Each value counts once. A concatenation takes but what does not lie in it already, computed in its place."""
    made = {row.output.serial for row in rows}
    placed = {v.serial for v in (row.output for row in rows) if isinstance(v.op, Reshape)}
    total = 0
    for value in topological([row.output for row in rows]):
        if value.serial not in made or isinstance(value.op, Reshape):
            continue
        if not isinstance(value.op, Concat):
            total += value.size
            continue
        for part in value.inputs:
            total += part.size if part.serial in placed or part.serial not in made else 0
            placed.add(part.serial)
    return FLOAT * total


def multiply_adds(value: Value) -> int:
    """Multiplications, each with an addition, that an op takes: those of products; all others are small beside them.

    >>> from convolve.graph import apply, leaf
    >>> x, w = leaf("input", "x", (1, 784)), leaf("parameter", "w", (100, 784))
    >>> multiply_adds(apply(Convolution(Window((), (), (), ())), x, w))
    78400
    """
    if not isinstance(value.op, (Convolution, InputGradient)):
        return 0
    x, w = value.inputs
    slid = value if isinstance(value.op, Convolution) else x
    return slid.size * math.prod(w.shape[1:])


# receptive fields


FAR = 1 << 40
"""An interval from here back to its negative sees nothing."""


@dataclass(frozen=True, eq=False)
class Interval:
    """Position o of one dimension sees the input's positions low[o] .. high[o]. One interval may stand for all.

    What lies beyond the ends, in padding, goes on by `jump` input positions a position.
    """

    low: np.ndarray
    high: np.ndarray
    jump: Fraction = Fraction(1)

    @property
    def size(self) -> int:
        """Input positions that one of the positions sees, at most."""
        return max(0, int((self.high - self.low).max()) + 1)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last input position that each of `positions` sees."""
        inside = positions.clip(0, len(self.low) - 1)
        beyond = (positions - inside) * self.jump.numerator
        low, high = beyond // self.jump.denominator, -(-beyond // self.jump.denominator)
        return self.low[inside] + low, self.high[inside] + high

    def slid(self, kernel: int, stride: int, dilation: int, pad: int, count: int) -> Interval:
        """What the positions of a window over these positions see."""
        places = np.arange(count)[:, None] * stride - pad + np.arange(kernel) * dilation
        low, high = self.at(places)
        return Interval(low.min(1), high.max(1), self.jump * stride)

    def spread(self, kernel: int, stride: int, dilation: int, pad: int, count: int) -> Interval:
        """What the positions see onto which a transposed window spreads these: those with a tap there."""
        places = np.arange(count)[:, None] + pad - np.arange(kernel) * dilation
        reached = places % stride == 0
        low, high = self.at(places // stride)
        low, high = low.min(1, where=reached, initial=FAR), high.max(1, where=reached, initial=-FAR)
        return Interval(low, high, self.jump / stride)

    def moved(self, start: int, count: int) -> Interval:
        """What `count` positions from `start` on see; before the first and behind the last there is padding."""
        return Interval(*self.at(np.arange(start, start + count)), self.jump)

    def made(self, by: Map) -> Interval:
        """What the positions see that a map makes of these. Around what is wrapped, the input goes on as in padding."""
        if by.kind in ("constant", "wrap"):
            return self.moved(-by.lo, by.output)
        rows, columns, _ = by.entries()
        if len(np.unique(rows)) < by.output:
            return self.mixed()
        low, high = self.at(columns)
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        jump = self.jump if by.kind in PADDINGS else self.jump * Fraction(by.size, by.output)
        return Interval(np.minimum.reduceat(low, first), np.maximum.reduceat(high, first), jump)

    def mixed(self) -> Interval:
        """What all positions see together."""
        return Interval(self.low.min(keepdims=True), self.high.max(keepdims=True), Fraction(0))

    def repeated(self, count: int) -> Interval:
        """The only position stands for `count`; more than one stay as they are."""
        return replace(self, jump=Fraction(0)) if len(self.low) == 1 < count else self

    def joined(self, other: Interval) -> Interval:
        """What a position sees that has both at its place."""
        count = max(len(self.low), len(other.low))
        a, b = self.repeated(count), other.repeated(count)
        if not {len(a.low), len(b.low)} <= {1, count}:
            a, b = a.mixed(), b.mixed()
        return Interval(np.minimum(a.low, b.low), np.maximum(a.high, b.high), max(a.jump, b.jump))


Field = tuple[Interval, ...]
"""An interval for each spatial dimension of the input."""


def receptive_fields(x: Value, output: Value) -> dict[int, Field]:
    """The receptive field of each value between `x` and `output` that depends on `x`, by its serial."""
    fields: dict[int, Field] = {x.serial: tuple(Interval(np.arange(n), np.arange(n)) for n in x.shape[1:-1])}
    for value in topological([output]):
        known = [fields[v.serial] for v in value.inputs if v.serial in fields]
        if known:
            rule = RULES.get(type(value.op), _mixing)
            fields[value.serial] = rule(value, _joined(known))
    return fields


def _joined(fields: Sequence[Field]) -> Field:
    first, *others = fields
    for other in others:
        first = tuple(a.joined(b) for a, b in zip(first, other, strict=True))
    return first


def _keeping(value: Value, field: Field) -> Field:
    """Every position depends on its own alone, or on the one that is repeated."""
    if not _laid_out(value, field):
        return field
    return tuple(i.repeated(n) for i, n in zip(field, value.shape[1:-1], strict=True))


def _mixing(value: Value, field: Field) -> Field:
    """Every position may depend on all."""
    return tuple(i.mixed() for i in field)


def _laid_out(value: Value, field: Field) -> bool:
    """The value's dimensions between batch and channels are those of the field."""
    return len(value.shape) == len(field) + 2


def _sliding(value: Value, field: Field) -> Field:
    assert isinstance(value.op, (Convolution, InputGradient, Pool))
    window: Window = value.op.window
    if window.rank != len(field) or not _laid_out(value.inputs[0], field):
        return _mixing(value, field)
    move = Interval.spread if isinstance(value.op, InputGradient) else Interval.slid
    dims = zip(*(field, window.kernel, window.stride, window.dilation, window.pads, value.shape[1:-1]), strict=True)
    return tuple(move(i, k, stride, dilation, lo, count) for i, k, stride, dilation, (lo, _), count in dims)


def _resampling(value: Value, field: Field) -> Field:
    assert isinstance(value.op, Resample)
    if value.op.transposed or not _laid_out(value, field):
        return _mixing(value, field)
    return tuple(i.made(by) for i, by in zip(field, value.op.maps, strict=True))


def _reshaping(value: Value, field: Field) -> Field:
    """Elements see what they saw; where they are laid out anew, each may be at any position."""
    sizes = value.shape[1:-1]
    if _laid_out(value, field) and sizes != value.inputs[0].shape[1 : 1 + len(sizes)]:
        return _mixing(value, field)
    return field


def _transposing(value: Value, field: Field) -> Field:
    """Positions stay where batch and spatial dimensions do; elsewhere each may be at any position."""
    assert isinstance(value.op, Transpose)
    stay = 1 + len(field)
    return field if tuple(value.op.axes[:stay]) == tuple(range(stay)) else _mixing(value, field)


def _channels_only(value: Value, field: Field) -> Field:
    """A softmax, or a reduction: over the channels at each position, or over positions too."""
    x = value.inputs[0]
    axes = value.op.axes if isinstance(value.op, Reduce) else (len(x.shape) - 1,)
    return field if _laid_out(x, field) and tuple(axes) == (len(x.shape) - 1,) else _mixing(value, field)


def _joining(value: Value, field: Field) -> Field:
    assert isinstance(value.op, Concat)
    channels = value.op.axis % len(value.shape) == len(value.shape) - 1
    return field if channels else _mixing(value, field)


def _cutting(value: Value, field: Field) -> Field:
    assert isinstance(value.op, Slice)
    dim = value.op.axis - 1
    if not _laid_out(value, field) or not 0 <= dim < len(field):
        return field
    return (*field[:dim], field[dim].moved(value.op.start, value.shape[dim + 1]), *field[dim + 1 :])


RULES: dict[type, Callable[[Value, Field], Field]] = {
    **dict.fromkeys((Pointwise, Broadcast, Dropout), _keeping),
    **dict.fromkeys((Convolution, InputGradient, Pool), _sliding),
    **dict.fromkeys((Softmax, Reduce), _channels_only),
    Concat: _joining,
    Resample: _resampling,
    Reshape: _reshaping,
    Slice: _cutting,
    Transpose: _transposing,
}
"""How fields pass through each op; an op that is not here may mix all positions."""
