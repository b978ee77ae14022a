"""A layer of a person's own, as what it wrote: ops, inner layers, parameters and statistics. Files hold it so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Op, Shape, Value, apply
from convolve.layers.base import Layer, Parameter, Scope
from convolve.ops.pointwise import Broadcast
from convolve.ops.reduce import Reshape


@dataclass(frozen=True)
class Step:
    """One thing a layer does while it is built; it makes one value."""

    @property
    def reads(self) -> tuple[int, ...]:
        """Which values it takes: the layer's inputs come first, then one value a step."""
        return ()

    def make(self, scope: Scope, known: Sequence[Value], batch: int) -> Value:
        raise NotImplementedError


@dataclass(frozen=True)
class Apply(Step):
    """An op over values. In the target shape of a reshape or broadcast, -n stands for n times the batch size."""

    op: Op
    inputs: tuple[int, ...]

    @property
    def reads(self) -> tuple[int, ...]:
        return self.inputs

    def at(self, batch: int) -> Op:
        """The op for a batch of this size."""
        if isinstance(self.op, (Broadcast, Reshape)):
            return replace(self.op, target=tuple(n if n >= 0 else -n * batch for n in self.op.target))
        return self.op

    def make(self, scope: Scope, known: Sequence[Value], batch: int) -> Value:
        inputs = [known[i] for i in self.inputs]
        try:
            made = apply(self.at(batch), *inputs)
            if min(made.shape, default=1) < 1:
                raise ShapeError(f"its result would have shape {made.shape}")
        except (ValueError, IndexError, ArithmeticError) as error:
            raise ShapeError(
                f"{scope.title}: op {self.op.name} does not suit its inputs: {error}. "
                f"Received: {_listed([v.shape for v in inputs])}"
            ) from None
        return made


@dataclass(frozen=True)
class Call(Step):
    """An inner layer applied to values."""

    layer: Layer
    inputs: tuple[int, ...]

    @property
    def reads(self) -> tuple[int, ...]:
        return self.inputs

    def make(self, scope: Scope, known: Sequence[Value], batch: int) -> Value:
        return scope.apply(self.layer, *(known[i] for i in self.inputs))


@dataclass(frozen=True)
class Weight(Step):
    """A parameter of the layer."""

    name: str
    parameter: Parameter

    def make(self, scope: Scope, known: Sequence[Value], batch: int) -> Value:
        p = self.parameter
        return scope.parameter(self.name, p.shape, p.init, p.fan_in, p.fan_out, p.decay)


@dataclass(frozen=True)
class Statistic(Step):
    """A statistic of the layer, and the value it starts with."""

    name: str
    shape: Shape
    value: float

    def make(self, scope: Scope, known: Sequence[Value], batch: int) -> Value:
        return scope.statistic(self.name, self.shape, self.value)


STEPS: dict[str, type[Step]] = {cls.__name__: cls for cls in (Apply, Call, Statistic, Weight)}
"""Steps by name: what an expanded layer may consist of."""


@dataclass(frozen=True)
class Body:
    """Steps in order, which of the values is the result, and (statistic, new value) pairs for the end of a step."""

    steps: tuple[Step, ...]
    output: int
    updates: tuple[tuple[int, int], ...] = ()

    def check(self, inputs: int) -> None:
        """Refuse references to values that do not exist yet, and updates of what is no statistic."""
        for place, step in enumerate(self.steps):
            earlier(step.reads, inputs + place, f"step {place}")
        known = inputs + len(self.steps)
        earlier((self.output,), known, "the result")
        for pair in self.updates:
            earlier(pair, known, "an update")
            if pair[0] < inputs or not isinstance(self.steps[pair[0] - inputs], Statistic):
                raise ConvolveError(f"an update sets value {pair[0]}, which is not a statistic")


@dataclass(frozen=True)
class Expanded(Layer):
    """What a layer that is not of the vocabulary writes on inputs of these shapes; `convolve.storage` makes it.

    A net keeps a layer of one's own through a file in this form: the same ops, the same names, the same numbers.

    Raises:
        ShapeError: an input has another shape than the layer had when it was saved.
    """

    origin: str
    """What the layer's class is called in names, as `Layer.kind` gives it."""
    inputs: tuple[Shape, ...]
    """Shapes of the inputs, without the batch."""
    body: Body
    training: Body | None = None
    """What it does in training, where that differs."""
    name: str | None = None

    def __post_init__(self) -> None:
        for body in (self.body, self.training):
            if body is not None:
                body.check(len(self.inputs))

    def kind(self) -> str:
        return self.origin

    def build(self, scope: Scope, *inputs: Value) -> Value:
        shapes = tuple(v.shape[1:] for v in inputs)
        if shapes != self.inputs:
            raise ShapeError(
                f"{scope.title}: was saved as the ops it writes on inputs of shape {_listed(self.inputs)}, and takes "
                f"no others; for those, build the net from the layer's class. Received: {_listed(shapes)}"
            )
        batch = inputs[0].shape[0] if inputs else 1
        body = self.training if scope.training and self.training else self.body
        known = list(inputs)
        for step in body.steps:
            known.append(step.make(scope, known, batch))
        for statistic, value in body.updates:
            scope.update(known[statistic], known[value])
        return known[body.output]


def earlier(places: Sequence[int], known: int, who: str) -> None:
    """Refuse references to anything but the first `known` values: no cycles, nothing out of range.

    Raises:
        ConvolveError: with what `who` refers to.
    """
    for place in places:
        if not 0 <= place < known:
            raise ConvolveError(f"{who} takes value {place}; the values before it are 0 to {known - 1}")


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(str, shapes)) or "none"
