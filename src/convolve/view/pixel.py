"""What one value of a layer is made of, number by number.

`Traced` has every layer's result for one sample, as `Network.trace` computes it; `Traced.pixel` follows a layer's own
ops from one of its values back to the results that they read, and says what stands there: the patch and the filter of a
convolution, a pool's window, a norm's numbers. It multiplies and adds anew, in float64, so that `total` can be held
against the traced `value`.

Positions are (*spatial, channel) in the order in which the network keeps a layer's result, which is channels last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convolve import layers
from convolve.errors import ShapeError
from convolve.graph import Constant, Leaf, Shape, Value
from convolve.network import Network
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.layout import Concat, Slice, Transpose
from convolve.ops.norm import Normalize
from convolve.ops.pointwise import Broadcast, Pointwise
from convolve.ops.pool import Pool
from convolve.ops.reduce import Reduce, Reshape
from convolve.ops.resample import Resample
from convolve.ops.softmax import LogSoftmax, Softmax
from convolve.view.anatomy import Anatomy, one_sample, passes
from convolve.view.made import Computed, Joined, Made, Mapped, Normalised, Pooled, Products, Shares, Taken, plain
from convolve.view.text import table


@dataclass(frozen=True)
class After:
    """A function that reads a value by itself, a norm or an activation, and what it makes of it."""

    layer: str
    kind: str
    value: float


@dataclass(frozen=True, eq=False)
class Pixel:
    """One value of a layer, what it is made of, and what becomes of it. Prints itself."""

    layer: str
    kind: str
    position: tuple[int, ...]
    """(*spatial, channel)."""
    value: float
    """As traced."""
    made: Made
    after: tuple[After, ...] = ()

    @property
    def error(self) -> float:
        """How far the numbers shown are from the traced value, as a part of the size of what is added up."""
        difference = abs(self.made.total - self.value)
        return difference / self.made.scale if difference else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        names = ("layer", "kind", "position", "value", "after")
        found = {name: plain(getattr(self, name)) for name in names}
        return found | {"made": self.made.as_dict(), "error": self.error}

    def __str__(self) -> str:
        head = f"{self.layer} {list(self.position)} = {self.value:.6g}  ({self.kind})"
        steps = [(step.layer, step.kind, f"{step.value:.6g}") for step in self.after]
        then = table(("then", "", "value"), steps, left=2).splitlines() if steps else []
        return "\n".join([head, *(f"  {line}" for line in (*self.made.lines(), *then))])

    __repr__ = __str__


class Traced:
    """A network at one sample: every layer's result, and what any value of it is made of.

    >>> from convolve import Conv, Model, ReLU, Sequential
    >>> model = Model(Sequential(Conv(1, 3, init=0.5), ReLU()), input_shape=(4, 4, 1))
    >>> traced = Traced(model.network, np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1))
    >>> traced.pixel("conv1", (0, 1, 0))
    conv1 [0, 1, 0] = 9  (Conv)
      channel 0: patch, filter, products; (0) is padding
              (0)      (0)      (0)         0.5      0.5      0.5           0        0        0
                0        1        2         0.5      0.5      0.5           0      0.5        1
                4        5        6         0.5      0.5      0.5           2      2.5        3
      sum 9 + bias 0 = 9
      then         value
      ------------------
      relu1  ReLU      9
    """

    def __init__(self, network: Network, x: np.ndarray | Sequence[np.ndarray], anatomy: Anatomy | None = None) -> None:
        """
        Args:
            network: any whose inputs leave no size open.
            x: one sample as a batch, (1, *input_shape), numbers of any real type; where the net has several inputs,
                one of each.
            anatomy: of this network for a batch of one, where it is at hand.

        Raises:
            ShapeError: x is not one sample of the network's input.
        """
        self.network = network
        self.anatomy = anatomy or Anatomy(network)
        self.given = dict(zip(self.anatomy.inputs, one_sample(network, x), strict=True))
        """What the net is given, by the names that `Anatomy` has for inputs."""
        self.version = network.version
        """Of the network's parameters and statistics, while it was traced."""
        self.results = network.trace(*self.given.values())
        """The result of every layer, by name: (1, *spatial, channels)."""

    @property
    def x(self) -> np.ndarray:
        """The first input."""
        return next(iter(self.given.values()))

    def pixel(self, layer: str, position: Sequence[int]) -> Pixel:
        """What a layer's value at (*spatial, channel) is made of.

        Raises:
            ConvolveError: there is no such layer.
            ShapeError: it has no such position.
        """
        row = self.anatomy.row(layer)
        shape = row.output.shape[1:]
        at = tuple(int(i) for i in position)
        if len(at) != len(shape) or not all(0 <= i < n for i, n in zip(at, shape, strict=True)):
            raise ShapeError(f"{layer}: expected a position within {shape}. Received: position={tuple(position)}")
        index = (0, *at)
        return Pixel(
            layer=layer,
            kind=row.layer.title(),
            position=at,
            value=float(self.results[layer][index]),
            made=_Ops(self).top(row, index),
            after=tuple(self._after(row, index)),
        )

    def _after(self, row: layers.Row, index: tuple[int, ...]) -> Iterator[After]:
        """Pointwise layers that read the value alone, one after the other."""
        rows = list(self.anatomy.rows.values())
        for follower in rows[rows.index(row) + 1 :]:
            read = self.anatomy.function_of(follower)
            if read and read.serial == row.output.serial and read.shape == follower.output.shape:
                value = float(self.results[follower.path][index])
                yield After(follower.path, follower.layer.title(), value)
                row = follower


class _Ops:
    """A walk along a layer's own ops, from one of its values back."""

    def __init__(self, traced: Traced) -> None:
        self._anatomy, self._traced = traced.anatomy, traced
        self._arrays: dict[int, np.ndarray] = {}

    def top(self, row: layers.Row, index: tuple[int, ...]) -> Made:
        """What a layer's value is made of, even where an inner layer made it."""
        output = row.output
        if passes(row):
            return self._taken(output, index)
        return self._own(output, index, 1.0, 0.0)

    # arrays

    def _array(self, value: Value) -> np.ndarray:
        """A value of the graph: as traced, as the network keeps it, or by its op's plain definition."""
        if value.serial not in self._arrays:
            self._arrays[value.serial] = self._known(value) if self._is_known(value) else self._computed(value)
        return self._arrays[value.serial]

    def _is_known(self, value: Value) -> bool:
        return value.serial in self._anatomy.known

    def _known(self, value: Value) -> np.ndarray:
        path = self._anatomy.known[value.serial]
        return self._traced.given[path] if path in self._traced.given else self._traced.results[path]

    def _computed(self, value: Value) -> np.ndarray:
        if isinstance(value.op, Leaf):
            return self._traced.network[f"{value.op.kind}:{value.op.key}"]
        return np.asarray(value.op.reference(*(self._array(v) for v in value.inputs)))

    def _at(self, value: Value, index: tuple[int, ...]) -> float:
        """The number that is broadcast to an index."""
        return float(self._array(value)[_within(value.shape, index)])

    def _sources(self, *values: Value) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for value in values for name in self._anatomy.sources(value)))

    # the walk

    def _made(self, value: Value, index: tuple[int, ...], factor: float, offset: float) -> Made:
        """What factor * value[index] + offset is made of."""
        if not self._is_known(value):
            return self._own(value, index, factor, offset)
        if (factor, offset) == (1.0, 0.0):
            return self._taken(value, index)
        x = self._at(value, index)
        return Mapped(self._sources(value), x, factor * x + offset)

    def _taken(self, value: Value, index: tuple[int, ...]) -> Made:
        return Taken(self._sources(value), index[1:], self._at(value, index))

    def _own(self, value: Value, index: tuple[int, ...], factor: float, offset: float) -> Made:
        plain = (factor, offset) == (1.0, 0.0)
        op = value.op
        if isinstance(op, (Reshape, Transpose, Slice, Concat, Broadcast)) or op == Pointwise("cast"):
            return self._made(*_moved(value, index), factor, offset)
        if isinstance(op, (Convolution, InputGradient)):
            return self._products(value, index, factor, offset)
        if isinstance(op, Resample) and not op.transposed:
            return self._resampled(value, index, factor, offset)
        if isinstance(op, Reduce) and not offset:
            return self._reduced(value, index, factor)
        if isinstance(op, Pool) and plain:
            return self._pooled(value, index)
        if isinstance(op, (Softmax, LogSoftmax)) and plain:
            [x] = value.inputs
            logits = self._array(x)[index[:-1]]
            return Shares(self._sources(x), logits, index[-1], isinstance(op, LogSoftmax))
        if plain and (normalised := self._normalised(value, index)):
            return normalised
        if isinstance(op, Pointwise):
            return self._pointwise(value, index, factor, offset)
        y = factor * self._at(value, index) + offset
        return Computed(self._sources(*value.inputs), op.name, y)

    def _pointwise(self, value: Value, index: tuple[int, ...], factor: float, offset: float) -> Made:
        moving = [v for v in value.inputs if self._sources(v)]
        if len(moving) == 1:
            affine = self._affine(value, moving[0], index)
            if affine:
                a, b = affine
                return self._made(moving[0], _within(moving[0].shape, index), factor * a, factor * b + offset)
        y = factor * self._at(value, index) + offset
        frontier = self._anatomy.frontier(value)
        if len(frontier) == 1:
            [x] = frontier
            at = _within(x.shape, index)
            of = None if self._is_known(x) else self._made(x, at, 1.0, 0.0)
            return Mapped(self._sources(x), self._at(x, at), y, of)
        if (factor, offset) == (1.0, 0.0):
            return self._joined(value, index, y)
        return Computed(self._sources(*value.inputs), value.op.name, y)

    def _affine(self, value: Value, x: Value, index: tuple[int, ...]) -> tuple[float, float] | None:
        """a and b where the value is a * x + b with a and b from parameters alone."""
        assert isinstance(value.op, Pointwise)
        if value.op.function == "negative":
            return -1.0, 0.0
        if len(value.inputs) != 2 or value.op.function not in ("add", "subtract", "multiply", "divide"):
            return None
        first = value.inputs[0] is x
        other = self._at(value.inputs[1 if first else 0], index)
        match value.op.function:
            case "add":
                return 1.0, other
            case "subtract":
                return (1.0, -other) if first else (-1.0, other)
            case "multiply":
                return other, 0.0
        return (1.0 / other, 0.0) if first else None

    def _joined(self, value: Value, index: tuple[int, ...], y: float) -> Made:
        assert isinstance(value.op, Pointwise)
        terms = list(self._terms(value, value.op))
        names = tuple(", ".join(name or "input" for name in self._sources(v)) for v in terms)
        return Joined(self._sources(*terms), value.op.function, tuple(self._at(v, index) for v in terms), names, y)

    def _terms(self, value: Value, op: Pointwise) -> Iterator[Value]:
        for v in value.inputs:
            if v.op == op and op.function in ("add", "multiply") and not self._is_known(v):
                yield from self._terms(v, op)
            else:
                yield v

    def _normalised(self, value: Value, index: tuple[int, ...]) -> Normalised | None:
        """A norm's numbers: of the op that takes moments of its input, or of what `layers.norms.batch_norm` writes."""
        if isinstance(value.op, Normalize):
            x, mean, variance, scale, shift = value.inputs
            epsilon = value.op.epsilon
        else:
            found = _batch_norm(value)
            if found is None:
                return None
            x, mean, variance, scale, shift = found[0]
            epsilon = found[1]
        number, centre, spread, by, offset = (self._at(v, index) for v in (x, mean, variance, scale, shift))
        return Normalised(self._sources(x), number, centre, spread, by, offset, epsilon)

    # windows

    def _products(self, value: Value, index: tuple[int, ...], factor: float, offset: float) -> Made:
        op, (x, w) = value.op, value.inputs
        assert isinstance(op, (Convolution, InputGradient))
        array, weights, channel = self._array(x), self._array(w), index[-1]
        if isinstance(op, Convolution):
            places, there = op.window.covers(index[1:-1]), np.ones(op.window.kernel, bool)
            width, filters = w.shape[-1], w.shape[0] // op.groups
            first, chosen = channel // filters * width, weights[channel]
        else:
            places, there = op.window.covered(index[1:-1])
            width, filters = w.shape[0] // op.groups, w.shape[-1]
            first = channel // filters * width
            chosen = np.moveaxis(weights[first : first + width, ..., channel % filters], 0, -1)
        inside = np.asarray(there & ((places >= 0) & (places < np.array(x.shape[1:-1], np.int64))).all(-1))
        return Products(
            sources=self._sources(x),
            patch=gathered(array[index[0]], places, inside)[..., first : first + width],
            weights=chosen if factor == 1 else chosen * np.float64(factor),
            bias=offset,
            places=places,
            inside=inside,
            first_channel=first,
            winograd=not self._traced.network.exact and op.tiling(x.shape, w.shape, fixed=True) is not None,
        )

    def _resampled(self, value: Value, index: tuple[int, ...], factor: float, offset: float) -> Made:
        op, [x] = value.op, value.inputs
        assert isinstance(op, Resample)
        entries = [along.entries() for along in op.maps]
        read = [(c[r == at], w[r == at]) for (r, c, w), at in zip(entries, index[1:-1], strict=True)]
        counts = tuple(len(columns) for columns, _ in read)
        if all(len(w) == 1 and w[0] == 1 for _, w in read):
            return self._made(x, (index[0], *(int(c[0]) for c, _ in read), index[-1]), factor, offset)
        weights = np.ones(())
        for _, along in read:
            weights = np.multiply.outer(weights, along)
        places = np.stack(np.meshgrid(*(c for c, _ in read), indexing="ij"), -1)
        inside = np.ones(counts, bool)
        patch = gathered(self._array(x)[index[0]], places, inside)[..., index[-1] : index[-1] + 1]
        bias = offset if all(counts) else factor * op.fill + offset
        return Products(self._sources(x), patch, factor * weights[..., None], bias, places, inside, index[-1])

    def _pooled(self, value: Value, index: tuple[int, ...]) -> Made:
        op, [x] = value.op, value.inputs
        assert isinstance(op, Pool)
        size = x.shape[1:-1]
        places = op.window.covers(index[1:-1])
        inside = np.asarray(((places >= 0) & (places < np.array(size, np.int64))).all(-1))
        divisor = float(op.divisor(size)[index[1:-1]]) if op.kind == "avg" else 1.0
        patch = gathered(self._array(x)[index[0]], places, inside)[..., index[-1]]
        return self._window(x, op.kind, patch, places, inside, index[-1], divisor)

    def _reduced(self, value: Value, index: tuple[int, ...], factor: float) -> Made:
        """A reduction is a pool whose window is all there is; a sum over so many, divided by it, is their mean."""
        op, [x] = value.op, value.inputs
        assert isinstance(op, Reduce)
        left = iter(index)
        at = tuple(slice(None) if axis in op.axes else next(left) for axis in range(len(x.shape)))
        patch = self._array(x)[at]
        if op.kind == "max" and factor != 1:
            return Computed(self._sources(x), op.kind, factor * self._at(value, index))
        mean = op.kind == "sum" and factor != 1
        channel = at[-1] if isinstance(at[-1], int) else 0
        places = np.moveaxis(np.indices(patch.shape), 0, -1)
        kind = "avg" if mean else op.kind
        return self._window(x, kind, patch, places, np.ones(patch.shape, bool), channel, 1 / factor if mean else 1.0)

    def _window(
        self,
        x: Value,
        kind: str,
        patch: np.ndarray,
        places: np.ndarray,
        inside: np.ndarray,
        channel: int,
        divisor: float,
    ) -> Pooled:
        winner = None
        if kind == "max":
            best = np.where(inside, patch, -np.inf)
            winner = tuple(int(i) for i in np.unravel_index(best.argmax(), best.shape))
        return Pooled(self._sources(x), kind, patch, places, inside, channel, winner, divisor)


def _batch_norm(value: Value) -> tuple[tuple[Value, Value, Value, Value, Value], float] | None:
    match value:
        case Value(
            Pointwise("add"),
            (
                Value(
                    Pointwise("multiply"),
                    (
                        Value(Pointwise("subtract"), (x, mean)),
                        Value(
                            Pointwise("divide"),
                            (
                                scale,
                                Value(
                                    Pointwise("sqrt"),
                                    (Value(Pointwise("add"), (variance, Value(Constant(epsilon)))),),
                                ),
                            ),
                        ),
                    ),
                ),
                shift,
            ),
        ):
            return (x, mean, variance, scale, shift), float(epsilon)
    return None


def _moved(value: Value, index: tuple[int, ...]) -> tuple[Value, tuple[int, ...]]:
    """Where an element of a value that only lies otherwise comes from."""
    op, x = value.op, value.inputs[0]
    if isinstance(op, Reshape):
        return x, tuple(int(i) for i in np.unravel_index(np.ravel_multi_index(index, value.shape), x.shape))
    if isinstance(op, Transpose):
        return x, tuple(index[op.axes.index(axis)] for axis in range(len(index)))
    if isinstance(op, Slice):
        return x, (*index[: op.axis], index[op.axis] + op.start, *index[op.axis + 1 :])
    if isinstance(op, Concat):
        parts = op.parts(value)
        x, axis, first = next(part for part in reversed(parts) if part[2] <= index[part[1]])
        return x, (*index[:axis], index[axis] - first, *index[axis + 1 :])
    return x, _within(x.shape, index)


def _within(shape: Shape, index: tuple[int, ...]) -> tuple[int, ...]:
    """The index, in an array of this shape, of what is broadcast to `index`."""
    behind = index[len(index) - len(shape) :]
    return tuple(0 if n == 1 else i for n, i in zip(shape, behind, strict=True))


def gathered(x: np.ndarray, places: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """x (*spatial, channels) at places (*kernel, rank), with 0 at those that are not inside: (*kernel, channels)."""
    if not places.shape[-1]:
        return x
    at = np.where(inside[..., None], places, 0)
    return np.where(inside[..., None], x[tuple(np.moveaxis(at, -1, 0))], np.float32(0))
