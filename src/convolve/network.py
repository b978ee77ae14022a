"""A network: a net met its input. Its parameters, and the programs made of it, one per use and shape of the input."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from convolve.deferred import Deferred
from convolve.errors import ConvolveError, ShapeError
from convolve.execution import Arena, Executable
from convolve.linked import LinkedProgram, Place
from convolve.native.cache import MissingKernel
from convolve.native.workers import aligned, default_threads
from convolve.port import Port, sample_shape
from convolve.program import pack_into, packed, unpack

if TYPE_CHECKING:
    from convolve import graph
    from convolve.graph import Graph, Shape, Value, leaf
    from convolve.layers import Construction, Layer, Parameter, Scope
    from convolve.ops import cast
    from convolve.ops.softmax import Softmax
    from convolve.passes import compile_graph, packed_leaves
else:  # what a net does not need whose programs are known
    graph = Deferred("convolve.graph")
    Graph = Deferred("convolve.graph:Graph")
    leaf = Deferred("convolve.graph:leaf")
    Construction = Deferred("convolve.layers:Construction")
    Scope = Deferred("convolve.layers:Scope")
    cast = Deferred("convolve.ops:cast")
    Softmax = Deferred("convolve.ops.softmax:Softmax")
    compile_graph = Deferred("convolve.passes:compile_graph")
    packed_leaves = Deferred("convolve.passes:packed_leaves")

PROGRAMS = 16
"""Programs a network keeps: the least recently used goes first."""
SLACK = 64


TRIALS = (224, 64, 32, 300, 512, 16, 8, 4, 2, 1)
"""Sizes tried for dimensions that are known when the net is called, to see which arrays it has."""


@dataclass(frozen=True)
class Feed:
    """What a program depends on of an input: its whole shape, its element type, and the elements of a fixed one."""

    shape: Shape
    dtype: str = "f4"
    elements: bytes | None = None

    @classmethod
    def of(cls, x: np.ndarray, port: Port) -> Feed:
        """That of an array: float32 or uint8, or any type for a fixed input."""
        if port.fixed:
            return cls(x.shape, x.dtype.str, x.tobytes())
        return cls(x.shape, "u1" if x.dtype == np.uint8 else "f4")

    def made(self, key: str) -> Value | np.ndarray:
        """A leaf for the input, or its elements."""
        if self.elements is None:
            return leaf("input", key, self.shape, self.dtype)
        return np.frombuffer(self.elements, self.dtype).reshape(self.shape)


class Memory(Protocol):
    """Where the programs of a net are kept for other processes."""

    def recall(self, given: tuple[Feed, ...]) -> LinkedProgram | None:
        """The program for inputs of these shapes and types."""

    def keep(self, given: tuple[Feed, ...], linked: LinkedProgram) -> None:
        """Let others find it."""


@dataclass(frozen=True)
class Outline:
    """What predictions need to know of a net: its inputs, how its arrays lie, and its results' types."""

    ports: tuple[Port, ...]
    layouts: dict[str, tuple[Shape, int]]
    types: Mapping[str, str]


@dataclass(frozen=True)
class Anatomy:
    """What is seen of a net when it is built."""

    output_shape: Shape
    specs: dict[str, Parameter]
    origins: dict[Any, str]
    """Which array of an imported file each of the net's arrays was, and how it lies now."""


Arrays = Mapping[str, np.ndarray]
ARRAYS = ("parameter", "statistic", "constant")
"""Kinds of arrays that belong to a net, and to its file."""


@dataclass(frozen=True)
class Forward:
    """A net built on inputs of known shapes: its inputs, its outputs by name, and what its layers left behind."""

    inputs: tuple[Value, ...]
    outputs: dict[str, Value]
    construction: Construction
    known: dict[str, np.ndarray] = field(default_factory=dict)
    """Outputs that depend on shapes alone."""
    given: tuple[Feed, ...] = ()
    """What it was built on."""

    @property
    def input(self) -> Value:
        """The first input: the only one of nets that are trained."""
        return self.inputs[0]

    @property
    def output(self) -> Value:
        """The first output."""
        return next(iter(self.outputs.values()))

    @property
    def logits(self) -> Value:
        """The first output as losses take it: before the softmax in which a net from a file ends."""
        ends = self.construction.origins and self.output.op == Softmax()
        return self.output.inputs[0] if ends else self.output


def build(net: Layer, input_shape: Shape | None, batch: int, dtype: str = "f4", training: bool = False) -> Forward:
    """Build a net's ops on a batch of inputs of element type `dtype` ("f4" or "u1"). No array is made.

    Raises:
        ShapeError: a layer does not suit its input; the message names it.
    """
    ports = net.ports(None if input_shape is None else _checked_shape(input_shape))
    return build_on(net, feeds(ports, batch, dtype), training)


def build_on(
    net: Layer, given: Sequence[Feed], training: bool = False, frozen: frozenset[str] = frozenset()
) -> Forward:
    """Build a net's ops on inputs of these shapes and types. The first is called "x", others "x1", "x2" ..."""
    made = [feed.made(f"x{i or ''}") for i, feed in enumerate(given)]
    construction = Construction(training, frozen)
    floats = (replace(cast(x), label=x.label) if isinstance(x, graph.Value) else x for x in made)
    outputs = Scope(construction).build_net(net, *floats)
    return Forward(
        tuple(x for x in made if isinstance(x, graph.Value)),
        {name: x for name, x in outputs.items() if isinstance(x, graph.Value)},
        construction,
        {name: x for name, x in outputs.items() if not isinstance(x, graph.Value)},
        tuple(given),
    )


def feeds(ports: Sequence[Port], batch: int, dtype: str = "f4") -> tuple[Feed, ...]:
    """What is known of the inputs for a batch of so many samples; the first one has the given type."""
    shapes = [(batch, *sample_shape(port))[: len(port.shape)] for port in ports]
    return tuple(Feed(shape, dtype if i == 0 else "f4") for i, shape in enumerate(shapes))


class Network:
    """A net with an input shape, its arrays, and a bounded cache of programs that share one arena."""

    _first: Forward | None = None
    """What it was built to see its arrays: the first prediction is often just that."""

    def __init__(
        self,
        net: Layer,
        input_shape: Shape | None,
        seed: int = 0,
        threads: int | None = None,
        arrays: Arrays | Callable[[Construction], Arrays] | None = None,
        exact: bool = False,
        first: Sequence[np.ndarray] | None = None,
    ) -> None:
        """`arrays` gives all parameters, statistics and constants by key, instead of their first values from `seed`.

        They may depend on what the layers declared. With `exact`, convolutions are computed directly, as they are
        defined. An imported net says itself what its inputs are; `input_shape` binds what it leaves open. `first` are
        inputs as they will come, where the arrays depend on them.
        """
        bound = None if input_shape is None else _checked_shape(input_shape)
        self._begin(lambda: net, bound, net.ports(bound), net.types(), threads, exact)
        known = None if first is None else tuple(Feed.of(x, p) for x, p in zip(first, self.ports, strict=True))
        built = self.built() if known is None else self.on(known)
        self._first = built
        specs = self.specs
        panels = packed_leaves(Graph(dict(built.outputs)))
        statistics = built.construction.statistics
        shapes = {f"parameter:{name}": spec.shape for name, spec in specs.items()}
        shapes |= {f"statistic:{name}": value.shape for name, value in statistics.items()}
        shapes |= {f"constant:{name}": shape for name, shape in built.construction.constants.items()}
        if callable(arrays):
            arrays = arrays(built.construction)
        elif arrays is not None:
            _check_arrays(shapes, arrays)
        for key, shape in shapes.items():
            self._create(key, shape, panels.get(key.removeprefix("parameter:"), 0))
        for index, (name, spec) in enumerate(specs.items() if arrays is None else ()):
            self[f"parameter:{name}"] = spec.sample(np.random.Generator(np.random.Philox(key=[seed, index])))
        for key, value in (arrays or {f"statistic:{name}": value for name, value in statistics.items()}).items():
            self.fill(key, value)

    @classmethod
    def outlined(
        cls, outline: Outline, net: Callable[[], Layer], bound: Shape | None, threads: int | None, arrays: Arrays
    ) -> Network:
        """A network whose net is made when it is needed: not for predictions of which the programs are known."""
        network = cls.__new__(cls)
        network._begin(net, bound, outline.ports, outline.types, threads, exact=False)
        for key, (shape, panels) in outline.layouts.items():
            network._create(key, shape, panels)
        for key, array in arrays.items():
            network.fill(key, array)
        return network

    def _begin(
        self,
        net: Callable[[], Layer],
        bound: Shape | None,
        ports: tuple[Port, ...],
        types: Mapping[str, str],
        threads: int | None,
        exact: bool,
    ) -> None:
        """What a network has before it has arrays."""
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ConvolveError(f"threads must be a positive number or None. Received: threads={threads!r}")
        self._net, self.bound, self.ports, self.types = net, bound, ports, types
        self.threads = threads or default_threads()
        self.exact = exact
        self.lock = threading.RLock()
        self.arena = Arena()
        self.user: object = None
        self.stores: dict[str, np.ndarray] = {}
        self.layouts: dict[str, tuple[Shape, int]] = {}
        self.version = 0
        """Counts the changes of parameters and statistics: what was prepared of them is then made anew."""
        self._prepared: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()
        self.frozen: frozenset[str] = frozenset()
        """Paths of the layers that do not learn."""
        self.memory: Memory | None = None
        self._programs: OrderedDict[object, Executable] = OrderedDict()
        self._known: dict[object, dict[str, np.ndarray]] = {}

    @cached_property
    def net(self) -> Layer:
        return self._net()

    @cached_property
    def anatomy(self) -> Anatomy:
        """What is known of the net once it was built."""
        built = self._first or self.built()
        shape = built.output.shape[1:] if built.outputs else ()
        return Anatomy(shape, built.construction.parameters, built.construction.origins)

    @property
    def output_shape(self) -> Shape:
        return self.anatomy.output_shape

    @property
    def specs(self) -> dict[str, Parameter]:
        """The parameters by name."""
        return self.anatomy.specs

    @property
    def origins(self) -> dict[Any, str]:
        return self.anatomy.origins

    @property
    def outline(self) -> Outline:
        kept = {key: layout for key, layout in self.layouts.items() if key.partition(":")[0] in ARRAYS}
        return Outline(self.ports, kept, self.types)

    # arrays

    def _create(self, key: str, shape: Shape, panels: int, dtype: str = "f4") -> None:
        self.layouts[key] = (shape, panels)
        size = packed(key, shape, panels).memory.size if panels else math.prod(shape)
        self.stores[key] = aligned(size + SLACK, np.dtype(dtype).type)

    def __getitem__(self, key: str) -> np.ndarray:
        """A copy of an array, in the shape people know it by."""
        shape, panels = self.layouts[key]
        store = self.stores[key]
        if panels:
            return unpack(store[:-SLACK], shape, panels)
        return np.array(store[:-SLACK].reshape(shape))

    def __setitem__(self, key: str, value: np.ndarray) -> None:
        shape, _ = self.layouts[key]
        array = np.asarray(value)
        if array.shape != shape:
            name = key.split(":", 1)[1]
            raise ShapeError(f"{name}: expected an array of shape {shape}. Received: shape {array.shape}")
        self.fill(key, array)

    def fill(self, key: str, array: np.ndarray) -> None:
        """Set an array from one that has the same elements in the same order; its axes may be cut finer."""
        shape, panels = self.layouts[key]
        store = self.stores[key][:-SLACK]
        with self.lock:
            if panels:
                pack_into(store, array if array.shape[:1] == shape[:1] else array.reshape(shape), panels)
            else:
                store.reshape(array.shape)[...] = array
            self.version += 1

    def keys(self, kind: str) -> list[str]:
        """Names of the arrays of a kind: "parameter", "statistic", "state"."""
        return [key.split(":", 1)[1] for key in self.stores if key.startswith(f"{kind}:")]

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the parameters, statistics and constants, by key."""
        return {key: self[key] for key in self.stores if key.partition(":")[0] in ARRAYS}

    @property
    def trained(self) -> list[str]:
        """Names of the parameters that learn."""
        return [name for name in self.specs if name.rpartition(".")[0] not in self.frozen]

    def freeze(self, paths: frozenset[str]) -> None:
        """Let the layers of these paths learn no more, and all others learn."""
        with self.lock:
            self.frozen = paths
            self._programs.clear()
            self.user = None

    def snapshot(self) -> dict[str, np.ndarray]:
        """Copies of all arrays as they lie in memory; `restore` puts them back."""
        return {key: store.copy() for key, store in self.stores.items()}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        with self.lock:
            for key, store in snapshot.items():
                self.stores[key][:] = store
            self.version += 1

    def reset(self, kind: str) -> None:
        """Zero all arrays of a kind, as before the first step."""
        for key, store in self.stores.items():
            if key.startswith(f"{kind}:"):
                store[:] = 0

    # graphs and programs

    @cached_property
    def input_shape(self) -> Shape:
        """The shape of one sample of the first input."""
        return sample_shape(self.ports[0])

    def closed(self, given: Mapping[str, Shape]) -> Network:
        """This network with sizes for all that its inputs leave open: of samples `given` by name, or some that suit it.

        Raises:
            ShapeError: a sample does not fit its input, or no size suits.
        """
        words: dict[str, int] = {}
        for port in self.ports:
            sizes = self.sample(port, (1, *given[port.name])) if port.name in given else ()
            words |= {n: m for n, m in zip(port.shape[1:], sizes, strict=False) if isinstance(n, str)}
        left = {n for port in self.ports for n in port.shape[1:] if isinstance(n, str)} - set(words)
        if not words and not left:
            return self
        imported: Any = self.net  # no other net leaves sizes open
        failed: ShapeError | None = None
        for size in TRIALS if left else (0,):
            ports = tuple(port.sized(words | dict.fromkeys(left, size)) for port in self.ports)
            try:
                return Network(replace(imported, inputs=ports), None, 0, self.threads, self.arrays(), self.exact)
            except ShapeError as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def sample(self, port: Port, given: Shape) -> Shape:
        """The shape of one sample of an input: where some sizes are known only now, those of the `given` array."""
        sizes = port.shape[1:]
        if not any(isinstance(n, str) for n in sizes):
            return sizes  # type: ignore[return-value]
        if len(given) != len(port.shape) or any(
            isinstance(n, int) and n != m for n, m in zip(sizes, given[1:], strict=True)
        ):
            raise ShapeError(f"expected {port}. Received: shape {given}")
        return given[1:]

    def feeds(self, batch: int, dtype: str = "f4") -> tuple[Feed, ...]:
        """What is known of the inputs for a batch of so many samples; the first one has the given type."""
        return feeds(self.ports, batch, dtype)

    def forward(self, batch: int, dtype: str = "f4", training: bool = False) -> Forward:
        """As `build`, this net."""
        return self.on(self.feeds(batch, dtype), training)

    def on(self, given: Sequence[Feed], training: bool = False) -> Forward:
        """As `build_on`, this net."""
        return build_on(self.net, given, training, self.frozen)

    def built(self) -> Forward:
        """The net built on some input, to see what arrays and layers it has."""
        if all(isinstance(n, int) for port in self.ports for n in port.shape[1:]):
            batch = next((n for port in self.ports for n in port.shape[:1]), 1)
            return self.forward(batch if isinstance(batch, int) else 1)
        failed: ShapeError | None = None
        for size in TRIALS:
            try:
                return self.on([Feed(tuple(self._trial(port, size))) for port in self.ports])
            except ShapeError as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def _trial(self, port: Port, size: int) -> Iterator[int]:
        for place, n in enumerate(port.shape):
            yield n if isinstance(n, int) else 1 if place == 0 else size

    def executable(self, key: object, build: Callable[[], Graph], fused: bool = True) -> Executable:
        """The program of `key`, from the cache or compiled from the graph that `build` makes."""
        with self.lock:
            known = self._programs.pop(key, None)
            if known is None:
                program = compile_graph(build(), fused, self.exact or not fused)
                _fits(program.arena_bytes)
                linked = LinkedProgram.of(program)
                for name, place in linked.stores.items():
                    self._agree(name, place)
                known = Executable(linked, self.arena, self.stores, self._prepared, program)
            self._enter(key, known)
            return known

    def _enter(self, key: object, executable: Executable) -> None:
        self._programs[key] = executable
        while len(self._programs) > PROGRAMS:
            key, _ = self._programs.popitem(last=False)
            self._known.pop(key, None)

    def _agree(self, key: str, place: Place) -> None:
        """An array a program names for the first time is made, zeroed; a known one must lie as the program reads it."""
        if key not in self.stores:
            self._create(key, place.shape, place.panels, {"f4": "f4", "i8": "i8"}[place.dtype])
        elif self.layouts[key] != (place.shape, place.panels):
            raise ConvolveError(f"{key}: kept as {self.layouts[key]}, a program reads it as {place.shape}")

    def run(
        self, executable: Executable, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Run a program once and copy the named results."""
        with self.lock:
            executable.run(inputs, self.threads, self.version)
            self.version += executable.changes
            return {name: executable.output(name) for name in outputs}

    def predict(self, *inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The net's outputs by name for inputs (n, ...) of float32 or uint8, contiguous."""
        feeds, arrays = self.fed(inputs)
        executable = self.prediction(feeds)
        made = self.run(executable, arrays, executable.outputs)
        made |= self._known.get(("predict", feeds), {})
        return made | {name: made[name].astype(dtype) for name, dtype in self.types.items()}

    def fed(self, inputs: Sequence[np.ndarray]) -> tuple[tuple[Feed, ...], dict[str, np.ndarray]]:
        """What a program depends on of these inputs, and what it is given of them when it runs."""
        pairs = list(zip(inputs, self.ports, strict=True))
        arrays = {f"x{i or ''}": x for i, (x, port) in enumerate(pairs) if not port.fixed}
        return tuple(Feed.of(x, port) for x, port in pairs), arrays

    def prediction(self, feeds: tuple[Feed, ...]) -> Executable:
        """The program that computes the outputs for inputs of these shapes and types."""

        def build() -> Graph:
            first, self._first = self._first, None
            found = first if first is not None and first.given == feeds else self.on(feeds)
            if found.known:
                self._known["predict", feeds] = found.known
            return Graph(dict(found.outputs), prediction=True)

        key = ("predict", feeds)
        with self.lock:
            if self.memory is None or key in self._programs:
                return self.executable(key, build)
            known = self._recalled(self.memory.recall(feeds))
            if known is not None:
                self._enter(key, known)
                return known
            made = self.executable(key, build)
            if key not in self._known:
                self.memory.keep(feeds, made.linked)
            return made

    def _recalled(self, linked: LinkedProgram | None) -> Executable | None:
        """A program from another process, if its kernels are still there."""
        if linked is None:
            return None
        _fits(linked.arena_bytes)
        try:
            return Executable(linked, self.arena, self.stores, self._prepared)
        except MissingKernel:
            return None

    def trace(self, *inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Every layer's output for a batch, from a program that fuses nothing and computes convolutions directly."""
        feeds, arrays = self.fed(inputs)

        def build() -> Graph:
            rows = self.on(feeds).construction.rows
            return Graph({row.path: row.output for row in rows})

        executable = self.executable(("trace", feeds), build, fused=False)
        return self.run(executable, arrays, executable.outputs)


class View(MutableMapping[str, np.ndarray]):
    """Arrays of one kind by name: reading gives a read-only copy, assigning sets the network's own."""

    def __init__(self, network: Network, kind: str) -> None:
        self._network, self._kind = network, kind

    def _key(self, name: str) -> str:
        key = f"{self._kind}:{name}"
        if key not in self._network.stores:
            raise KeyError(f"no {self._kind} is named {name!r}; there are {', '.join(self)}")
        return key

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._network[self._key(name)]
        array.flags.writeable = False
        return array

    def __setitem__(self, name: str, value: np.ndarray) -> None:
        self._network[self._key(name)] = value

    def __delitem__(self, name: str) -> None:
        raise ConvolveError(f"{name}: a net's arrays cannot be deleted; assign new values instead")

    def __iter__(self) -> Iterator[str]:
        return iter(self._network.keys(self._kind))

    def __len__(self) -> int:
        return len(self._network.keys(self._kind))

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {self._network.layouts[self._key(name)][0]}" for name in self)


def _fits(needed: int) -> None:
    """Refuse a program that needs more memory than the machine has."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every platform says
        return
    if 0 < there < needed:
        raise ConvolveError(
            f"a run needs {needed / 2**30:.1f} GiB for what lies between its layers; this machine has "
            f"{there / 2**30:.1f} GiB. Use smaller batches or smaller images"
        )


def _check_arrays(shapes: Mapping[str, Shape], arrays: Mapping[str, np.ndarray]) -> None:
    """The arrays a net needs are there, with their shapes, and no others."""
    if shapes.keys() != arrays.keys():
        odd = sorted(shapes.keys() ^ arrays.keys())
        raise ShapeError(f"arrays {', '.join(odd[:4])} are missing or unknown to the net")
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise ShapeError(f"{key} has shape {arrays[key].shape}, the net needs {shape}")


MOST_INPUTS = 1 << 31


def _checked_shape(shape: Shape) -> Shape:
    if not isinstance(shape, (tuple, list)) or not shape or not all(isinstance(n, (int, np.integer)) for n in shape):
        raise ShapeError(
            f"input_shape is (*spatial, channels) without the batch, as in (28, 28, 1). Received: {shape!r}"
        )
    if min(shape) < 1:
        raise ShapeError(f"input_shape must be positive in every dimension. Received: {shape!r}")
    if np.prod(shape, dtype=np.float64) >= MOST_INPUTS:
        raise ShapeError(f"input_shape has more than {MOST_INPUTS:,} elements. Received: {shape!r}")
    return tuple(int(n) for n in shape)
