"""A net taken apart: its layers' values, what lies between them, and which of the input's positions each sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from convolve import layers
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Leaf, Shape, Value
from convolve.network import Network
from convolve.ops.pointwise import Broadcast, Pointwise
from convolve.port import sample_shape
from convolve.view.summary import Field, entry, receptive_fields

INPUT = ""
"""What the net's input is called among the sources of values; of several, each is "input:" and its name."""
Box = tuple[tuple[int, int], ...]
"""The first and the last position along each spatial dimension."""


class Anatomy:
    """A network built on a batch, for who looks into it. Nothing is run.

    >>> from convolve import Conv, MaxPool, Model, Sequential
    >>> model = Model(Sequential(Conv(8, 3), MaxPool(2), Conv(4, 3)), input_shape=(28, 28, 1))
    >>> Anatomy(model.network).sees("conv2", (0, 7))
    ((-3, 4), (11, 18))
    """

    def __init__(self, network: Network, batch: int = 1) -> None:
        self.network = network
        self.forward = network.forward(batch)
        self.rows: dict[str, layers.Row] = {row.path: row for row in self.forward.construction.rows}
        """Layers by name, in order, blocks before what is in them. Of the outputs of one node, the last."""
        self.known: dict[int, str] = {}
        """Which layer made a value, by the value's serial, and not a block around it or one that hands it on.

        Between these values lies what layers do by themselves.
        """
        ports = [port for port in network.ports if not port.fixed]
        names = [f"input:{port.name}" for port in ports] if len(ports) > 1 else [INPUT]
        self.inputs: dict[str, Value] = dict(zip(names, self.forward.inputs, strict=True))
        """The net's inputs, by what they are called among sources."""
        given = {x.serial: name for name, x in self.inputs.items()}
        for x in (*self.forward.inputs, *(v for row in self.rows.values() for v in row.inputs)):
            x_or_cast = x.inputs[0] if x.op == Pointwise("cast") else x
            if x_or_cast.serial in given:
                self.known[x.serial] = given[x_or_cast.serial]
        for path, row in self.rows.items():
            maker = self.known.setdefault(row.output.serial, path)
            if maker not in self.inputs and path.startswith(f"{maker}."):
                self.known[row.output.serial] = path

    def row(self, layer: str) -> layers.Row:
        """A layer by its name.

        Raises:
            ConvolveError: there is none; the message lists them.
        """
        if layer not in self.rows:
            raise ConvolveError(f"no layer is called {layer!r}. There are {', '.join(self.rows)}")
        return self.rows[layer]

    @cached_property
    def fields(self) -> dict[int, Field]:
        """Receptive fields on the first input by serial: those of one sample do not depend on the batch."""
        return self.fields_on(0)

    def fields_on(self, number: int) -> dict[int, Field]:
        """Likewise on any of the inputs."""
        return receptive_fields(self.entry(number), self.forward.output)

    def entry(self, number: int = 0) -> Value:
        """An input, channels last: imported nets may take it otherwise."""
        return entry(self.forward, number)

    @cached_property
    def spatial(self) -> Shape:
        """The sizes of the input's positions. Imported nets may take them behind the channels."""
        return self.entry().shape[1:-1]

    @property
    def channels_first(self) -> bool:
        """Whether a sample is (channels, *spatial), as imported nets take it, not (*spatial, channels)."""
        return self.channels_first_in(0)

    def channels_first_in(self, number: int) -> bool:
        """Likewise of any of the inputs."""
        given, spatial = self.forward.inputs[number].shape[1:], self.entry(number).shape[1:-1]
        return given[:-1] != spatial and given[1:] == spatial

    def sees(self, layer: str, position: Shape) -> Box | None:
        """The input's positions that a layer's output may depend on at a spatial position: first and last, inclusive.

        They may lie outside of the input, in padding. None where the layer no longer has the input's dimensions, so
        that every value may depend on all.
        """
        value = self.row(layer).output
        field = self.fields.get(value.serial)
        if field is None or len(position) != len(field) or len(value.shape) != len(field) + 2:
            return None
        ends = [interval.at(np.array([at])) for interval, at in zip(field, position, strict=True)]
        return tuple((int(low[0]), int(high[0])) for low, high in ends)

    def sources(self, value: Value) -> tuple[str, ...]:
        """The layers whose results a value is made of directly, in order; parameters are no such."""
        found: dict[str, None] = {}
        self._collect((value,), found, set())
        return tuple(found)

    def inside(self, row: layers.Row) -> tuple[str, ...]:
        """The layers whose results a layer's own ops read, in order: of a block, those in it."""
        if passes(row):
            return self.sources(row.output)
        found: dict[str, None] = {}
        self._collect(row.output.inputs, found, set())
        return tuple(found)

    def own(self, row: layers.Row) -> list[Value]:
        """The values that a layer's own ops make, its result first."""
        found, stack = {row.output.serial: row.output}, [] if passes(row) else list(row.output.inputs)
        while stack:
            value = stack.pop()
            if value.serial not in self.known and value.serial not in found:
                found[value.serial] = value
                stack.extend(value.inputs)
        return list(found.values())

    def frontier(self, value: Value) -> list[Value]:
        """What a value is a pointwise function of: results of layers, and of a layer's own ops that are not pointwise.

        Parameters are no such. For a value that is pointwise itself.
        """
        found: dict[int, Value] = {}
        stack = list(reversed(value.inputs))
        while stack:
            inner = stack.pop()
            if inner.serial not in self.known and isinstance(inner.op, (Pointwise, Broadcast)):
                stack.extend(reversed(inner.inputs))
            elif self.sources(inner):
                found[inner.serial] = inner
        return list(found.values())

    def function_of(self, row: layers.Row) -> Value | None:
        """The result of a layer of which another is a pointwise function, as an activation is; else None."""
        if not isinstance(row.output.op, Pointwise):
            return None
        found = self.frontier(row.output)
        return found[0] if len(found) == 1 and found[0].serial in self.known else None

    def heard(self, layer: str) -> str:
        """Where the rest of the net hears a layer: the last of the norms and activations behind it, or it itself.

        Each of them reads the one before alone, and is all that reads it.
        """
        path = layer
        self.row(layer)
        while True:
            name = self.known[self.rows[path].output.serial]
            readers = [row for row in self.rows.values() if name in self.inside(row) and not passes(row)]
            if len(readers) != 1 or not self.function_of(readers[0]):
                return path
            if readers[0].output.shape != self.rows[path].output.shape:
                return path
            path = readers[0].path

    def _collect(self, values: Iterable[Value], found: dict[str, None], seen: set[int]) -> None:
        for value in values:
            if value.serial in seen:
                continue
            seen.add(value.serial)
            if value.serial in self.known:
                found[self.known[value.serial]] = None
            elif not isinstance(value.op, Leaf):
                self._collect(value.inputs, found, seen)


def passes(row: layers.Row) -> bool:
    """Whether a layer hands its input on as it is, as dropout does in predictions."""
    return any(v.serial == row.output.serial for v in row.inputs)


def one_sample(network: Network, x: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """One sample of each input as float32: x is that of the only one, or a sequence of them.

    Raises:
        ShapeError: it is something else.
    """
    arrays = [x] if isinstance(x, np.ndarray) else list(x)
    wanted = [(1, *sample_shape(port)) for port in network.ports]
    if [a.shape for a in arrays] != wanted:
        expected, received = (", ".join(map(str, shapes)) for shapes in (wanted, [a.shape for a in arrays]))
        raise ShapeError(f"expected one sample, shape {expected}. Received: shape {received}")
    return [np.ascontiguousarray(a, np.float32) for a in arrays]
