"""A network: a net met its input. Its parameters, and the programs made of it, one per use and batch size."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from convolve.errors import ConvolveError, ShapeError
from convolve.execution import Arena, Executable
from convolve.graph import Graph, Shape, Value, leaf
from convolve.layers import Construction, Layer, Parameter, Scope
from convolve.native.workers import aligned, default_threads
from convolve.ops import cast
from convolve.passes import compile_graph, packed_leaves
from convolve.program import Buffer, pack, packed, unpack

PROGRAMS = 16
"""Programs a network keeps: the least recently used goes first."""
SLACK = 64


@dataclass(frozen=True)
class Forward:
    """A net built on a batch: its input, its output, and what its layers left behind."""

    input: Value
    output: Value
    construction: Construction


def build(net: Layer, input_shape: Shape, batch: int, dtype: str = "f4", training: bool = False) -> Forward:
    """Build a net's ops on a batch of inputs of element type `dtype` ("f4" or "u1"). No array is made.

    Raises:
        ShapeError: a layer does not suit its input; the message names it.
    """
    x = leaf("input", "x", (batch, *_checked_shape(input_shape)), dtype)
    construction = Construction(training)
    output = Scope(construction).build_root(net, cast(x))
    return Forward(x, output, construction)


class Network:
    """A net with an input shape, its arrays, and a bounded cache of programs that share one arena."""

    def __init__(
        self,
        net: Layer,
        input_shape: Shape,
        seed: int = 0,
        threads: int | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        exact: bool = False,
    ) -> None:
        """`arrays` gives all parameters and statistics by key, instead of their first values from `seed`.

        With `exact`, convolutions are computed directly, as they are defined.
        """
        self.net = net
        self.input_shape = _checked_shape(input_shape)
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ConvolveError(f"threads must be a positive number or None. Received: threads={threads!r}")
        self.threads = threads or default_threads()
        self.exact = exact
        self.lock = threading.RLock()
        self.arena = Arena()
        self.user: object = None
        self.stores: dict[str, np.ndarray] = {}
        self.layouts: dict[str, tuple[Shape, int]] = {}
        self.version = 0
        """Counts the changes of parameters and statistics: what was prepared of them is then made anew."""
        self._prepared: WeakValueDictionary[bytes, np.ndarray] = WeakValueDictionary()
        self._programs: OrderedDict[object, Executable] = OrderedDict()
        built = self.forward(2)
        self.output_shape = built.output.shape[1:]
        self.specs: dict[str, Parameter] = built.construction.parameters
        panels = packed_leaves(Graph({"output": built.output}))
        statistics = built.construction.statistics
        shapes = {f"parameter:{name}": spec.shape for name, spec in self.specs.items()}
        shapes |= {f"statistic:{name}": value.shape for name, value in statistics.items()}
        if arrays is not None:
            _check_arrays(shapes, arrays)
        for key, shape in shapes.items():
            self._create(key, shape, panels.get(key.removeprefix("parameter:"), 0))
        for index, (name, spec) in enumerate(self.specs.items() if arrays is None else ()):
            self[f"parameter:{name}"] = spec.sample(np.random.Generator(np.random.Philox(key=[seed, index])))
        for key, value in (arrays or {f"statistic:{name}": value for name, value in statistics.items()}).items():
            self[key] = value

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
        shape, panels = self.layouts[key]
        array = np.asarray(value)
        if array.shape != shape:
            name = key.split(":", 1)[1]
            raise ShapeError(f"{name}: expected an array of shape {shape}. Received: shape {array.shape}")
        store = self.stores[key]
        with self.lock:
            store[:-SLACK] = (
                pack(np.asarray(array, np.float32), panels) if panels else array.astype(store.dtype).ravel()
            )
            self.version += 1

    def keys(self, kind: str) -> list[str]:
        """Names of the arrays of a kind: "parameter", "statistic", "state"."""
        return [key.split(":", 1)[1] for key in self.stores if key.startswith(f"{kind}:")]

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

    def forward(self, batch: int, dtype: str = "f4", training: bool = False) -> Forward:
        """As `build`, this net."""
        return build(self.net, self.input_shape, batch, dtype, training)

    def executable(self, key: object, build: Callable[[], Graph], fused: bool = True) -> Executable:
        """The program of `key`, from the cache or compiled from the graph that `build` makes."""
        with self.lock:
            known = self._programs.pop(key, None)
            if known is None:
                program = compile_graph(build(), fused, self.exact or not fused)
                for name, buffer in program.stores.items():
                    if buffer.memory.home == "store":
                        self._agree(name, buffer)
                known = Executable(program, self.arena, self.stores, self._prepared)
            self._programs[key] = known
            while len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
            return known

    def _agree(self, key: str, buffer: Buffer) -> None:
        """An array a program names for the first time is made, zeroed; a known one must lie as the program reads it."""
        if key not in self.stores:
            self._create(key, buffer.shape, buffer.panels, {"f4": "f4", "i8": "i8"}[buffer.memory.dtype])
        elif self.layouts[key] != (buffer.shape, buffer.panels):
            raise ConvolveError(f"{key}: kept as {self.layouts[key]}, a program reads it as {buffer.shape}")

    def run(
        self, executable: Executable, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Run a program once and copy the named results."""
        with self.lock:
            executable.run(inputs, self.threads, self.version)
            self.version += executable.changes
            return {name: executable.output(name) for name in outputs}

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The net's output for a batch (n, *input_shape) of float32 or uint8, contiguous."""
        dtype = "u1" if x.dtype == np.uint8 else "f4"
        key = ("predict", len(x), dtype)
        executable = self.executable(key, lambda: Graph({"output": self.forward(len(x), dtype).output}))
        return self.run(executable, {"x": x}, ("output",))["output"]

    def trace(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every layer's output for a batch, from a program that fuses nothing and computes convolutions directly."""
        dtype = "u1" if x.dtype == np.uint8 else "f4"

        def build() -> Graph:
            rows = self.forward(len(x), dtype).construction.rows
            return Graph({row.path: row.output for row in rows})

        executable = self.executable(("trace", len(x), dtype), build, fused=False)
        return self.run(executable, {"x": x}, tuple(executable.program.outputs))


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
