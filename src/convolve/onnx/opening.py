"""From an ONNX file to a network: by what an earlier process found out, where there was one, else by reading it all.

What is known of a file lies beside the kernels, under a digest of all that it depends on: the file but for the elements
of its large weights (`sketch`), the input's shape, this package's files, the kernels' generators and the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convolve.linked import LinkedProgram
from convolve.native import disk
from convolve.native.cache import generators
from convolve.native.target import host
from convolve.network import Feed, Network, Outline
from convolve.onnx.proto import Pages, contents, named_after
from convolve.onnx.sketch import Sketch, sketched
from convolve.port import Port

if TYPE_CHECKING:
    from convolve.layers import Layer
    from convolve.onnx.reading import Reading

Classes = tuple[str, ...] | None
MADE = ""
"""The constant of what follows from a file's; no node can read one of this name."""
MOST_MADE = 1 << 18
"""Elements of it that are kept with what is known of a net."""


def opened(
    source: str | Path | bytes, input_shape: tuple[int, ...] | None, threads: int | None
) -> tuple[Network, Classes]:
    """The network of an ONNX file, or of its bytes, and the names of its classes, where it says them.

    Raises:
        FileError: the file cannot be read, is damaged, or has operators that are not known; these are listed.
        ShapeError: an operator does not suit its inputs, or `input_shape` does not fit the file.
    """
    with named_after(source):
        data = contents(source)
        sketch = sketched(data)
        known = None if sketch is None else Known(sketch, Pages(data), input_shape)
        recalled = None if known is None else known.network(threads)
        if recalled is not None:
            return recalled
        from convolve.onnx.reading import read

    found = read(source)
    with named_after(source):
        network = Network(found.net, input_shape, 0, threads, found.laid_out)
        if known is not None:
            known.enter(network, found)
    return network, found.classes


class Known:
    """What is kept on disk of the net in a file: an outline of it, and its programs."""

    def __init__(self, sketch: Sketch, pages: Pages, input_shape: tuple[int, ...] | None) -> None:
        self._sketch, self._pages, self._shape = sketch, pages, input_shape
        self._name = _digest(sketch.digest, repr(input_shape), _surroundings())

    def network(self, threads: int | None) -> tuple[Network, Classes] | None:
        """The network as an earlier process left word of it."""
        entry = disk.read(f"{self._name}.net")
        if entry is None:
            return None
        text, _, rest = entry.partition(b"\n")
        told = json.loads(text)
        pieces = {key: Piece(**piece) for key, piece in told["pieces"].items()}
        arrays = Arrays(self._sketch.arrays | {MADE: np.frombuffer(rest, np.float32)}, pieces, self._pages)
        ports = tuple(Port(**(port | {"shape": tuple(port["shape"])})) for port in told["ports"])
        layouts = {key: (tuple(shape), panels) for key, (shape, panels) in told["layouts"].items()}
        outline = Outline(ports, layouts, told["types"])
        bound = None if self._shape is None else tuple(self._shape)
        structure, large = self._sketch.structure, self._sketch.large
        network = Network.outlined(outline, lambda: _net(structure, large), bound, threads, arrays)
        network.memory = self._programs()
        return network, None if told["classes"] is None else tuple(told["classes"])

    def enter(self, network: Network, found: Reading) -> None:
        """Leave word of a network, if all that it depends on is in the digest.

        Arrays that follow from the file's constants go with it, as long as they are few.
        """
        sketch, outline, constants = self._sketch, network.outline, found.constants
        pieces, made, size = dict[str, Piece](), list[np.ndarray](), 0
        for origin, key in network.origins.items():
            whole = constants.weight(origin.name)
            array = origin.layout.turned(whole)
            name, first = constants.place(array, whole, origin.name)
            if name in sketch.arrays and np.may_share_memory(array, whole):
                pieces[key] = Piece.of(array, name, first)
            else:
                constants.see(origin.name)
                pieces[key] = Piece.of(np.ascontiguousarray(array), MADE, size)
                made.append(array)
                size += array.size
        if outline.layouts.keys() != pieces.keys() or constants.seen & sketch.large or size > MOST_MADE:
            return
        told = {
            "ports": [asdict(port) for port in outline.ports],
            "layouts": outline.layouts,
            "types": dict(outline.types),
            "classes": found.classes,
            "pieces": {key: asdict(piece) for key, piece in pieces.items()},
        }
        elements = b"".join(array.tobytes() for array in made)
        disk.write(f"{self._name}.net", json.dumps(told).encode() + b"\n" + elements)
        network.memory = self._programs()

    def _programs(self) -> Programs:
        return Programs(self._name)


@dataclass(frozen=True)
class Piece:
    """Where the elements of an array lie in a constant: from which on, how many and how far from each other."""

    name: str
    first: int
    shape: Sequence[int]
    strides: Sequence[int]

    @classmethod
    def of(cls, array: np.ndarray, name: str, first: int) -> Piece:
        """That of an array whose first element is this one of a constant."""
        return cls(name, first, array.shape, [n // array.itemsize for n in array.strides])

    def view(self, flat: np.ndarray) -> np.ndarray:
        """The array again, a view of the constant's elements, and of none beside them."""
        size = flat.itemsize
        return np.ndarray(self.shape, flat.dtype, flat, self.first * size, [n * size for n in self.strides])


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of a network, views of a file's: their elements in the network's order."""

    def __init__(self, sources: Mapping[str, np.ndarray], pieces: Mapping[str, Piece], pages: Pages) -> None:
        self._sources, self._pieces, self._pages = sources, pieces, pages

    def __getitem__(self, key: str) -> np.ndarray:
        piece = self._pieces[key]
        found = piece.view(self._sources[piece.name])
        self._pages.release()
        self._pages.note(found.nbytes)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


class Programs:
    """The programs of a net on disk."""

    def __init__(self, net: str) -> None:
        self._net = net

    def _entry(self, given: tuple[Feed, ...]) -> str:
        return f"{_digest(self._net, repr(given))}.program"

    def recall(self, given: tuple[Feed, ...]) -> LinkedProgram | None:
        """The program for inputs of these shapes and types."""
        entry = disk.read(self._entry(given))
        return None if entry is None else LinkedProgram.from_bytes(entry)

    def keep(self, given: tuple[Feed, ...], linked: LinkedProgram) -> None:
        """Let others find it."""
        disk.write(self._entry(given), linked.to_bytes())


def _net(structure: bytes, hollow: frozenset[str]) -> Layer:
    from convolve.onnx.reading import read

    return read(structure, hollow).net


def _digest(*parts: str) -> str:
    return sha256("|".join(parts).encode()).hexdigest()[:40]


@cache
def _surroundings() -> str:
    """What of this process its programs depend on: the package's files, what writes kernels, the CPU."""
    package = Path(__file__).parents[1]
    folders = (package, *(package / name for name in ("layers", "layers/imported", "onnx", "ops", "passes", "native")))
    return _digest(disk.stamps(p for folder in folders for p in folder.glob("*.py")), generators(), repr(host()))
