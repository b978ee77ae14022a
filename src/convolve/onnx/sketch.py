"""A file without the elements of its large weights: what its net depends on, soon read and soon hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convolve.onnx.wire import View, message, varint

MODEL_GRAPH, GRAPH_INITIALIZER = 7, 5
TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 2, 4, 8, 9
TENSOR_INTEGERS = (5, 7, 10, 11)
TENSOR_OUTSIDE = (13, 14)
"""Numbers of fields, as in onnx.proto: elements of other types; elements in other files."""
FLOAT = 1
KEPT_BYTES = 4096
"""Bytes of a constant up to which its elements may be part of the net."""
MOST_FIELDS = 100_000
MOST_BYTES = 1 << 24
"""Bytes of a structure, at most."""
FIXED = {1: 8, 5: 4}


@dataclass(frozen=True)
class Sketch:
    """What a net depends on.

    `structure` is an ONNX file that lacks the elements of the constants `large`; `arrays` has the elements of all
    constants of float32, flat, where they lie.
    """

    structure: bytes
    arrays: dict[str, np.ndarray]
    large: frozenset[str]

    @property
    def digest(self) -> str:
        """Equal where the nets are, and the sizes of their weights."""
        found = hashlib.sha256(self.structure)
        for name, array in self.arrays.items():
            found.update(f"{name}:{array.size}|".encode())
        return found.hexdigest()


def sketched(data: View) -> Sketch | None:
    """The sketch of a file; None of one that is damaged, or keeps its weights in other ways."""
    try:
        return _Sketcher().sketch(data)
    except (ValueError, _Unusual):
        return None


class _Unusual(Exception):
    """What a full reading must look at."""


class _Sketcher:
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.large: set[str] = set()

    def sketch(self, data: View) -> Sketch:
        parts: list[View | bytes] = []
        graphs = 0
        for number, wire, begin, inside, end in fields(data):
            if number == MODEL_GRAPH and wire == 2:
                graphs += 1
                parts.append(message(MODEL_GRAPH, self._graph(data[inside:end])))
            else:
                parts.append(data[begin:end])
        if graphs != 1:
            raise _Unusual
        return Sketch(b"".join(parts), self.arrays, frozenset(self.large))

    def _graph(self, data: View) -> bytes:
        parts: list[View | bytes] = []
        left = MOST_BYTES
        for number, wire, begin, inside, end in fields(data):
            tensor = number == GRAPH_INITIALIZER and wire == 2
            part = self._tensor(data[begin:end], data[inside:end]) if tensor else data[begin:end]
            left -= len(part)
            if left < 0:
                raise _Unusual
            parts.append(part)
        return b"".join(parts)

    def _tensor(self, whole: View, data: View) -> View | bytes:
        """A constant as it is, or without its elements."""
        kept, found, name, kind, others = list[View](), list[View](), "", 0, False
        for number, wire, begin, inside, end in fields(data):
            if number in (TENSOR_FLOATS, TENSOR_RAW) and wire == 2:
                found.append(data[inside:end])
                continue
            kept.append(data[begin:end])
            others |= number in TENSOR_INTEGERS
            if number == TENSOR_NAME and wire == 2:
                name = str(data[inside:end], "utf-8")
            elif number == TENSOR_TYPE and wire == 0:
                kind, _ = varint(data, inside)
            elif number in TENSOR_OUTSIDE or number == TENSOR_FLOATS:
                raise _Unusual
        if kind != FLOAT or not found or others:
            return whole
        [raw] = found if len(found) == 1 else [b""]
        if len(raw) % 4 or not len(raw):
            raise _Unusual
        if name in self.arrays:
            raise _Unusual
        self.arrays[name] = np.frombuffer(raw, "<f4")
        if len(raw) <= KEPT_BYTES:
            return whole
        self.large.add(name)
        return message(GRAPH_INITIALIZER, b"".join(kept))


def fields(data: View) -> Iterator[tuple[int, int, int, int, int]]:
    """A message's fields: number, type, where each begins, where its value does, and where it ends.

    Raises:
        ValueError: the bytes are no message.
    """
    at, size = 0, len(data)
    for _ in range(MOST_FIELDS):
        if at == size:
            return
        begin = at
        key, at = varint(data, at)
        wire = key & 7
        if wire == 2:
            length, at = varint(data, at)
            inside, at = at, at + length
        elif wire == 0:
            inside = at
            _, at = varint(data, at)
        else:
            inside, at = at, at + FIXED.get(wire, size)
        if at > size:
            raise ValueError("a field goes on beyond its message")
        yield key >> 3, wire, begin, inside, at
    raise ValueError("more fields than any net has")
