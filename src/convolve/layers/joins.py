"""Layers that join values and hold other layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

from convolve import ops
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Shape, Value
from convolve.layers.base import JOINS, Layer, Scope, Symbol, one


@dataclass(frozen=True)
class Add(Layer):
    """Sum of two or more results of one shape; what `+` between symbols means."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        _alike(scope, inputs, "Add")
        total = inputs[0]
        for value in inputs[1:]:
            total = total + value
        return total


@dataclass(frozen=True)
class Multiply(Layer):
    """Product of two or more results whose shapes broadcast; what `*` between symbols means.

    Squeeze and excitation (Hu, Shen and Sun, 2018) scales each channel by what is seen of all, at any rank:

    >>> from convolve import AdaptiveAvgPool, Conv, Input, Model, ReLU, Sigmoid
    >>> x = Input()
    >>> scale = Sigmoid()(Conv(8, 1)(ReLU()(Conv(2, 1)(AdaptiveAvgPool(1)(x)))))
    >>> Model(Net(x, x * scale), input_shape=(6, 6, 8)).output_shape
    (6, 6, 8)
    """

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        _some(scope, inputs, "Multiply")
        if len({len(v.shape) for v in inputs}) > 1:
            shapes = ", ".join(str(v.shape[1:]) for v in inputs)
            raise ShapeError(f"{scope.title}: Multiply needs inputs of one rank. Received: {shapes}")
        total = inputs[0]
        for value in inputs[1:]:
            total = total * value
        return total


@dataclass(frozen=True)
class Concat(Layer):
    """Results one behind the other along `axis`: the channels by default.

    With `pad`, what is smaller than the first one gets its last positions once more, until it is as large: halved and
    doubled, an odd size has lost one (as in MONAI's U-Net).

    >>> from convolve import ConvTranspose, Input, MaxPool, Model
    >>> x = Input()
    >>> halved = MaxPool(2)(x)
    >>> net = Net(x, Concat(pad=True)(x, ConvTranspose(4, 2, stride=2)(halved)))
    >>> Model(net, input_shape=(7, 10, 3)).output_shape
    (7, 10, 7)
    """

    axis: int = -1
    pad: bool = False
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        _some(scope, inputs, "Concat")
        return _concatenated(scope, inputs, self.axis, self.pad)


@dataclass(frozen=True, init=False)
class Sequential(Layer):
    """Layers one after the other.

    >>> from convolve import Dense, Model, ReLU
    >>> Model(Sequential(Dense(100, bias=False), ReLU(), Dense(10, bias=False)), input_shape=(784,)).parameter_count
    79400
    """

    container: ClassVar[bool] = True
    layers: tuple[Layer, ...]
    name: str | None

    def __init__(self, *layers: Layer, name: str | None = None) -> None:
        object.__setattr__(self, "layers", _checked(layers))
        object.__setattr__(self, "name", name)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        for layer in self.layers:
            x = scope.apply(layer, x)
        return x

    def swapped(self, old: Layer, new: Layer | None) -> Layer | None:
        return new if self is old else Sequential(*_swapped(self.layers, old, new), name=self.name)


@dataclass(frozen=True, init=False)
class Residual(Layer):
    """body(x) + shortcut(x), where the shortcut is x itself unless given (He et al., 2016).

    >>> from convolve import Conv, Model
    >>> Model(Residual(Conv(8, 3), shortcut=Conv(8, 1)), input_shape=(6, 6, 2)).output_shape
    (6, 6, 8)
    """

    layers: tuple[Layer, ...]
    shortcut: Layer | None
    name: str | None

    def __init__(self, *layers: Layer, shortcut: Layer | None = None, name: str | None = None) -> None:
        object.__setattr__(self, "layers", _checked(layers))
        object.__setattr__(self, "shortcut", shortcut)
        object.__setattr__(self, "name", name)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        y = x
        for layer in self.layers:
            y = scope.apply(layer, y)
        side = scope.apply(self.shortcut, x) if self.shortcut else x
        if y.shape != side.shape:
            raise ShapeError(
                f"{scope.title}: the body gives {y.shape[1:]} and the shortcut {side.shape[1:]}; give a shortcut "
                "that fits, for instance shortcut=Conv(filters, 1, stride=...)"
            )
        return y + side

    def swapped(self, old: Layer, new: Layer | None) -> Layer | None:
        side = self.shortcut.swapped(old, new) if self.shortcut else None
        return new if self is old else Residual(*_swapped(self.layers, old, new), shortcut=side, name=self.name)


@dataclass(frozen=True, init=False)
class Parallel(Layer):
    """Branches over one input, their results one behind the other along `axis`: the channels by default.

    Blocks of an inception net (Szegedy et al., 2015) are such; a branch of several layers is a `Sequential`.

    >>> from convolve import Conv, MaxPool, Model, ReLU
    >>> block = Parallel(Conv(16, 1), Sequential(Conv(8, 1), ReLU(), Conv(24, 3)), MaxPool(3, stride=1, padding="same"))
    >>> Model(block, input_shape=(14, 14, 5)).output_shape
    (14, 14, 45)

    Raises:
        ConvolveError: there is no branch.
        ShapeError: the branches' results differ in another dimension.
    """

    layers: tuple[Layer, ...]
    axis: int
    name: str | None

    def __init__(self, *layers: Layer, axis: int = -1, name: str | None = None) -> None:
        if not layers:
            raise ConvolveError("Parallel: needs at least one branch. Received: none")
        object.__setattr__(self, "layers", _checked(layers))
        object.__setattr__(self, "axis", axis)
        object.__setattr__(self, "name", name)

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        return _concatenated(scope, [scope.apply(layer, x) for layer in self.layers], self.axis)

    def swapped(self, old: Layer, new: Layer | None) -> Layer | None:
        return new if self is old else Parallel(*_swapped(self.layers, old, new), axis=self.axis, name=self.name)


@dataclass(frozen=True, eq=False)
class Net(Layer):
    """Any directed graph of layers, from an input symbol to an output symbol.

    >>> from convolve import Conv, Input, Model, ReLU
    >>> x = Input()
    >>> h = Conv(16, 3)(x)
    >>> Model(Net(x, ReLU()(h + Conv(16, 3)(h))), input_shape=(8, 8, 3)).output_shape
    (8, 8, 16)
    """

    container: ClassVar[bool] = True
    input: Symbol
    output: Symbol
    name: str | None = None

    def order(self) -> list[Symbol]:
        """All symbols from the input to the output, each after those it needs."""
        done: dict[int, Symbol] = {}
        stack: list[tuple[Symbol, bool]] = [(self.output, False)]
        while stack:
            symbol, ready = stack.pop()
            if id(symbol) in done:
                continue
            if ready:
                done[id(symbol)] = symbol
                continue
            if symbol.layer is None and symbol is not self.input:
                raise ConvolveError("Net: its output depends on another Input than the one given; pass that one")
            stack.append((symbol, True))
            stack.extend((s, False) for s in reversed(symbol.inputs))
        return list(done.values())

    def build(self, scope: Scope, *inputs: Value) -> Value:
        x = one(inputs, scope)
        made: dict[int, Value] = {id(self.input): x}
        for symbol in self.order():
            if symbol.layer is not None:
                made[id(symbol)] = scope.apply(symbol.layer, *(made[id(s)] for s in symbol.inputs))
        return made[id(self.output)]

    def swapped(self, old: Layer, new: Layer | None) -> Layer | None:
        made: dict[int, Symbol] = {id(self.input): self.input}
        for symbol in self.order():
            if symbol.layer is not None:
                layer, inputs = symbol.layer.swapped(old, new), tuple(made[id(s)] for s in symbol.inputs)
                made[id(symbol)] = Symbol(layer, inputs) if layer is not None else inputs[0]
        return new if self is old else Net(self.input, made[id(self.output)], self.name)


def _swapped(layers: Sequence[Layer], old: Layer, new: Layer | None) -> list[Layer]:
    """The layers with one exchanged, or left out for None."""
    changed = [layer.swapped(old, new) for layer in layers]
    return [layer for layer in changed if layer is not None]


def _checked(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ConvolveError(
                f"layer {position} of a block is not a layer. Received: {layer!r}; write an instance, as in ReLU()"
            )
    return layers


def _some(scope: Scope, inputs: tuple[Value, ...], what: str) -> None:
    if not inputs:
        raise ShapeError(f"{scope.title}: {what} joins at least one input. Received: none")


def _concatenated(scope: Scope, values: Sequence[Value], axis: int, pad: bool = False) -> Value:
    shapes = [v.shape for v in values]
    listed = ", ".join(str(s[1:]) for s in shapes)
    rank = len(shapes[0])
    if any(len(s) != rank for s in shapes) or not isinstance(axis, Integral) or not -rank <= axis < rank:
        raise ShapeError(
            f"{scope.title}: results of one rank are joined along one of their axes (-1: the channels). "
            f"Received: {listed}, axis={axis!r}"
        )
    if axis % rank == 0:
        raise ShapeError(f"{scope.title}: axis 0 is the batch, which cannot grow. Received: axis={axis}")
    if pad:
        values = [_padded(x, values[0].shape, axis % rank) for x in values]
        shapes = [v.shape for v in values]
    if len({(*s[: axis % rank], *s[axis % rank + 1 :]) for s in shapes}) > 1:
        raise ShapeError(
            f"{scope.title}: along axis {axis}, results of one size in all other dimensions are joined; the same "
            f'strides and padding="same" keep it, sizes that halve without a rest as well, and Concat(pad=True) makes '
            f"up for what a rest left smaller. Received: {listed}"
        )
    return ops.concat(*values, axis=axis)


def _padded(x: Value, shape: Shape, axis: int) -> Value:
    """A result whose edge is repeated until it is as large as `shape`, but along `axis`."""
    lacking = [0 if d == axis else max(0, m - n) for d, (n, m) in enumerate(zip(x.shape, shape, strict=True))]
    return ops.pad(x, tuple((0, n) for n in lacking[1:-1]), "edge") if any(lacking[1:-1]) else x


def _alike(scope: Scope, inputs: tuple[Value, ...], what: str) -> None:
    _some(scope, inputs, what)
    shapes = {v.shape for v in inputs}
    if len(shapes) > 1:
        raise ShapeError(
            f"{scope.title}: {what} needs inputs of one shape. Received: {', '.join(str(v.shape[1:]) for v in inputs)}"
        )


JOINS.update(Add=Add, Multiply=Multiply)
