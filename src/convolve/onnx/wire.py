"""The bytes of an ONNX file without its weights: these are read where they lie, never copied into messages.

A message of protocol buffers is a row of fields: a key (number and type, a varint), then a value. Of the fields on the
way to a weight, model.graph (7), graph.initializer (5) and tensor.raw_data (9), all have the type 2: a length, then
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convolve.errors import FileError

GRAPH, NODE, INITIALIZER, RAW_DATA = 7, 1, 5, 9
LEAST = 1 << 10
"""Bytes from which on a weight is left where it is."""
MOST_NODES = 20_000
MOST_FIELDS = 1 << 20
"""Fields of one message, at most."""

View = memoryview


@dataclass(frozen=True)
class Field:
    """A field of a message: its number, where it begins, and its bytes, if it has a length."""

    number: int
    whole: View
    inner: View | None


def fields(data: View) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
        ValueError: the bytes are no message.
    """
    at, end, count = 0, len(data), 0
    while at < end:
        count += 1
        if count > MOST_FIELDS:
            raise ValueError(f"more than {MOST_FIELDS:,} fields in one message")
        start = at
        key, at = _varint(data, at)
        kind = key & 7
        inner = None
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(data, at)
            inner = data[at : at + length]
            at += length
        else:
            raise ValueError(f"a field of the type {kind}")
        if at > end:
            raise ValueError("a field goes on beyond its message")
        yield Field(key >> 3, data[start:at], inner)


def _varint(data: View, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place behind it."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")


def message(number: int, data: bytes) -> bytes:
    """A field of the type 2."""
    return _number(number << 3 | 2) + _number(len(data)) + data


def _number(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def parted(model: View) -> tuple[bytes, dict[int, View]]:
    """The model's bytes without large weights, and these by their place among the initialisers.

    Raises:
        ValueError: the bytes are no message.
        FileError: they have more nodes or constants than any net.
    """
    weights: dict[int, View] = {}
    nodes = count = 0
    parts = []
    for field in fields(model):
        if field.number != GRAPH or field.inner is None:
            parts.append(bytes(field.whole))
            continue
        graph = []
        for inner in fields(field.inner):
            if inner.number == INITIALIZER and inner.inner is not None:
                tensor, raw = _tensor(inner.inner)
                if raw is not None:
                    weights[count] = raw
                graph.append(message(INITIALIZER, tensor))
                count += 1
            else:
                nodes += inner.number == NODE
                graph.append(bytes(inner.whole))
            if max(nodes, count) > MOST_NODES:
                raise FileError(f"has more than {MOST_NODES:,} nodes or constants, as no net has")
        parts.append(message(GRAPH, b"".join(graph)))
    return b"".join(parts), weights


def _tensor(tensor: View) -> tuple[bytes, View | None]:
    """A tensor's bytes, and its elements where these are many."""
    if len(tensor) < LEAST:
        return bytes(tensor), None
    raw = None
    parts = []
    for field in fields(tensor):
        if field.number == RAW_DATA and field.inner is not None:
            raw = field.inner
        else:
            parts.append(bytes(field.whole))
    return b"".join(parts), raw
