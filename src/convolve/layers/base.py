"""What a layer is, how layers are called on each other, and what a layer is given when it meets its input."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Leaf, Shape, Value, leaf
from convolve.port import Port as Port


class Layer:
    """Base of all layers: a subclass is a frozen dataclass whose fields are what a person writes.

    Calling a layer on symbols makes a symbol (`Conv(16, 3)(x)`); `build` writes its ops on values once shapes are
    known. A layer of one's own needs `build` alone:

    >>> from dataclasses import dataclass
    >>> from convolve import Dense, Flatten, Model, Sequential, ops
    >>> @dataclass(frozen=True)
    ... class Swish(Layer):
    ...     name: str | None = None
    ...     def build(self, scope, x):
    ...         return x * ops.sigmoid(x)
    >>> Model(Sequential(Flatten(), Dense(4), Swish()), input_shape=(2, 3)).output_shape
    (4,)
    """

    name: str | None
    container: ClassVar[bool] = False
    """Whether the layer only holds others."""

    def build(self, scope: Scope, *inputs: Value) -> Value:
        """Write the layer's ops; raises `ShapeError` where the inputs do not suit it."""
        raise NotImplementedError

    def results(self, scope: Scope, *inputs: Value | np.ndarray) -> Mapping[str, Value | np.ndarray]:
        """Write the ops of a layer that is a whole net; what it makes, by name.

        Numbers stand for fixed inputs, and for results that do not depend on the others.
        """
        return {"output": self.build(scope, *(v for v in inputs if isinstance(v, Value)))}

    def types(self) -> Mapping[str, str]:
        """Element types of the results of a net that is this layer, by name, where they are not float32."""
        return {}

    def ports(self, input_shape: Shape | None) -> tuple[Port, ...]:
        """The inputs of a net that is this layer, for samples of `input_shape`."""
        if input_shape is None:
            raise ShapeError("input_shape is (*spatial, channels) without the batch, as in (28, 28, 1). Received: None")
        return (Port("x", ("batch", *input_shape)),)

    def __call__(self, *inputs: Symbol) -> Symbol:
        return Symbol(self, inputs)

    def swapped(self, old: Layer, new: Layer | None) -> Layer | None:
        """The layer with `old`, itself or one that it holds, exchanged for `new`; None where that leaves nothing."""
        return new if self is old else self

    def title(self) -> str:
        """What summaries call the layer."""
        return type(self).__name__

    def kind(self) -> str:
        """The class's name as names are made of it: `BatchNorm` is `batch_norm`, `LeakyReLU` is `leaky_relu`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", type(self).__name__).lower()


@dataclass(frozen=True, eq=False)
class Symbol:
    """A layer applied to symbols: an edge of a net whose shapes are not known yet."""

    layer: Layer | None
    inputs: tuple[Symbol, ...] = ()

    def __add__(self, other: Symbol) -> Symbol:
        return _join("Add", self, other)

    def __mul__(self, other: Symbol) -> Symbol:
        return _join("Multiply", self, other)


JOINS: dict[str, type[Layer]] = {}
"""Layers that operators between symbols stand for; `convolve.layers.joins` fills it."""


def _join(name: str, a: Symbol, b: Symbol) -> Symbol:
    if not isinstance(b, Symbol):
        raise ShapeError(f"{name} joins layers' results. Received: {b!r}")
    return JOINS[name]()(a, b)


def Input() -> Symbol:
    """The input of a net in its functional form."""
    return Symbol(None)


@dataclass(frozen=True)
class Parameter:
    """A learnt array: its shape, how it starts, and whether weight decay applies to it."""

    shape: Shape
    init: str | float
    fan_in: int | float
    fan_out: int | float
    decay: bool

    def sample(self, random: np.random.Generator) -> np.ndarray:
        """A first value, float32.

        `fan_in` is how many products an output sums, on average, `fan_out` how many outputs an input reaches.

        `he_normal`: variance 2 / fan_in (He et al., 2015); `glorot_uniform`: 6 / (fan_in + fan_out) as the squared
        limit (Glorot and Bengio, 2010); `lecun_normal`: variance 1 / fan_in; `zeros`; `ones`; a number
        is every element's.
        """
        if not isinstance(self.init, str):
            return np.full(self.shape, self.init, np.float32)
        if self.init in ("zeros", "ones"):
            return np.full(self.shape, float(self.init == "ones"), np.float32)
        if self.init == "glorot_uniform":
            limit = math.sqrt(6 / (self.fan_in + self.fan_out))
            return random.uniform(-limit, limit, self.shape).astype(np.float32)
        gain = {"he_normal": 2.0, "lecun_normal": 1.0}[self.init]
        made, scale = np.empty(math.prod(self.shape), np.float32), math.sqrt(gain / self.fan_in)
        for start in range(0, made.size, SAMPLED):
            part = made[start : start + SAMPLED]
            part[:] = random.standard_normal(part.size) * scale
        return made.reshape(self.shape)


SAMPLED = 1 << 16
"""Numbers drawn at a time: the float64 they come as stay in the cache."""
INITS = ("he_normal", "lecun_normal", "glorot_uniform", "zeros", "ones")


@dataclass(frozen=True)
class Row:
    """What a summary and a trace know of a layer that was built."""

    path: str
    layer: Layer
    inputs: tuple[Value, ...]
    output: Value
    depth: int
    rule: str = ""
    """What a file says of the layer's padding, and what was made of it."""


@dataclass
class Construction:
    """Everything a net's layers leave behind while they are built."""

    training: bool
    frozen: frozenset[str] = frozenset()
    """Paths of layers that do not learn: in training, too, they do what they do in inference."""
    unlimited: bool = False
    """Whether values may be of any size: nobody computes a net that is written to a file, whose batch is any number."""
    parameters: dict[str, Parameter] = field(default_factory=dict)
    statistics: dict[str, np.ndarray] = field(default_factory=dict)
    leaves: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Shape] = field(default_factory=dict)
    origins: dict[Any, str] = field(default_factory=dict)
    """Which array of the net each array of an imported file became."""
    updates: list[tuple[Value, Value]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    counter: int = 0

    @property
    def random(self) -> Value:
        """(seed, step): what random numbers of this step are made from."""
        if "random" not in self.leaves:
            self.leaves["random"] = leaf("random", "random", (2,), "i8")
        return self.leaves["random"]


@dataclass(frozen=True)
class Scope:
    """A layer's place in the net: it names parameters and statistics, and builds inner layers."""

    construction: Construction
    path: str = ""
    taken: set[str] = field(default_factory=set)
    depth: int = 0

    @property
    def training(self) -> bool:
        return self.construction.training and self.path not in self.construction.frozen

    @property
    def title(self) -> str:
        return self.path or "the net"

    def parameter(
        self, name: str, shape: Shape, init: str | float, fan_in: float = 1, fan_out: float = 1, decay: bool = True
    ) -> Value:
        """A learnt array of this layer. `decay=False` exempts it from weight decay (biases, norms)."""
        if init not in INITS and not (isinstance(init, Real) and math.isfinite(init)):
            raise ShapeError(
                f"{self.title}: init must be one of {', '.join(INITS)} or a finite number. Received: init={init!r}"
            )
        key = f"{self.path}.{name}" if self.path else name
        init = init if isinstance(init, str) else float(init)
        self.construction.parameters[key] = Parameter(shape, init, fan_in, fan_out, decay)
        return self._leaf("parameter", key, shape)

    def statistic(self, name: str, shape: Shape, value: float) -> Value:
        """An array that training keeps but does not learn by gradient."""
        key = f"{self.path}.{name}" if self.path else name
        self.construction.statistics[key] = np.broadcast_to(np.float32(value), shape)
        return self._leaf("statistic", key, shape)

    def constant(self, name: str, shape: Shape) -> Value:
        """An array that comes with the net and never changes."""
        key = f"{self.path}.{name}" if self.path else name
        self.construction.constants[key] = shape
        return self._leaf("constant", key, shape)

    def _leaf(self, kind: str, key: str, shape: Shape) -> Value:
        leaves = self.construction.leaves
        if key not in leaves:
            leaves[key] = leaf(kind, key, shape)
        return leaves[key]

    def update(self, statistic: Value, value: Value) -> None:
        """Let a statistic take a new value at the end of the step."""
        assert isinstance(statistic.op, Leaf)
        self.construction.updates.append((statistic, value))

    def number(self) -> int:
        """A number that no other layer of the net gets: keys random numbers."""
        self.construction.counter += 1
        return self.construction.counter

    def apply(self, layer: Layer, *inputs: Value) -> Value:
        """Build an inner layer, named after its kind and its turn unless it has a name."""
        path = self.name(layer)
        inner = Scope(self.construction, path, set(), self.depth + 1)
        place = len(self.construction.rows)
        try:
            made = layer.build(inner, *inputs)
        except ShapeError as error:
            text = str(error)
            if text.startswith(f"{path}."):
                raise
            named = text if text.startswith(f"{path}:") else f"{path}: {text}"
            shapes = ", ".join(str(v.shape[1:]) for v in inputs)
            received = "" if "Received: " in text else f". Received: input of shape {shapes}"
            raise type(error)(named + received) from None
        if made.label == "" and made.inputs:
            made = replace(made, label=path)
        self.construction.rows.insert(place, Row(path, layer, inputs, made, self.depth))
        return made

    def build_net(self, net: Layer, *inputs: Value | np.ndarray) -> Mapping[str, Value | np.ndarray]:
        """Build a whole net, its outputs by name: a container's own name is no part of its layers' names."""
        if net.container:
            return net.results(self, *inputs)
        return {"output": self.apply(net, *(v for v in inputs if isinstance(v, Value)))}

    def name(self, layer: Layer) -> str:
        """The path of an inner layer: its own name, or its kind and its turn. Each call is a layer more."""
        if layer.name:
            name = layer.name
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ConvolveError(
                    f"{self.title}: a layer's name is made of letters, digits, _ and -. Received: name={name!r}"
                )
            if name in self.taken:
                raise ConvolveError(f"{self.title}: two layers are named {name!r}; names within a block must differ")
        else:
            kind = layer.kind()
            number = 1
            while f"{kind}{number}" in self.taken:
                number += 1
            name = f"{kind}{number}"
        self.taken.add(name)
        return f"{self.path}.{name}" if self.path else name


def spatial(scope: Scope, x: Value, what: str) -> tuple[int, ...]:
    """The spatial sizes of a channels-last value; refuses a flat one."""
    if len(x.shape) < 3:
        raise ShapeError(
            f"{scope.title}: {what} needs (batch, *spatial, channels), at least one spatial dimension. "
            f"Received: input of shape {x.shape[1:]}"
        )
    return x.shape[1:-1]


def one(inputs: Sequence[Value], scope: Scope) -> Value:
    """The only input of a layer."""
    if len(inputs) != 1:
        raise ShapeError(f"{scope.title}: takes one input; Add and Concat join several. Received: {len(inputs)} inputs")
    return inputs[0]
