"""ONNX files as protocol buffers: what convolve reads of them, with weights left where they lie.

A message is a row of fields: a key (number and type, a varint), then a value (a varint, 4 or 8 bytes, or a length and
so many bytes). Numbers and names of fields are those of onnx.proto; fields that are not listed here are passed over.
The onnx package does the same, and takes longer to import than a small net to load.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convolve.errors import FileError

MOST_MESSAGES = 20_000
"""Messages of one kind within another, at most: nodes of a graph, constants."""
MOST_FIELDS = 1 << 20
"""Fields of one message, at most."""
SIZES = {1: 8, 5: 4}
"""Bytes of the wire's types of one size."""
PACKED = {"floats": "<f4", "doubles": "<f8"}
WIRES = {"integer": (0,), "integers": (0, 2), "float": (5,), "floats": (5, 2), "doubles": (1, 2)}
"""The wire's types that fields may have, numbers one by one or packed; all others have a length."""

View = memoryview

KINDS: dict[str, dict[int, tuple[str, str]]] = {
    "model": {
        2: ("producer_name", "text"),
        7: ("graph", "graph"),
        8: ("opset_import", "opset*"),
        14: ("metadata_props", "entry*"),
    },
    "opset": {1: ("domain", "text"), 2: ("version", "integer")},
    "entry": {1: ("key", "text"), 2: ("value", "text")},
    "graph": {
        1: ("node", "node*"),
        5: ("initializer", "tensor*"),
        11: ("input", "value*"),
        12: ("output", "value*"),
        15: ("sparse_initializer", "bytes"),
    },
    "node": {
        1: ("input", "text*"),
        2: ("output", "text*"),
        3: ("name", "text"),
        4: ("op_type", "text"),
        5: ("attribute", "attribute*"),
        7: ("domain", "text"),
    },
    "attribute": {
        1: ("name", "text"),
        2: ("f", "float"),
        3: ("i", "integer"),
        4: ("s", "bytes"),
        5: ("t", "tensor"),
        7: ("floats", "floats"),
        8: ("ints", "integers"),
        9: ("strings", "bytes*"),
        20: ("type", "integer"),
    },
    "tensor": {
        1: ("dims", "integers"),
        2: ("data_type", "integer"),
        4: ("float_data", "floats"),
        5: ("int32_data", "integers"),
        7: ("int64_data", "integers"),
        8: ("name", "text"),
        9: ("raw_data", "bytes"),
        10: ("double_data", "doubles"),
        11: ("uint64_data", "integers"),
        13: ("external_data", "entry*"),
        14: ("data_location", "integer"),
    },
    "value": {1: ("name", "text"), 2: ("type", "type")},
    "type": {
        1: ("tensor_type", "tensor_type"),
        4: ("sequence_type", "bytes"),
        5: ("map_type", "bytes"),
        8: ("sparse_tensor_type", "bytes"),
        9: ("optional_type", "bytes"),
    },
    "tensor_type": {1: ("elem_type", "integer"), 2: ("shape", "shape")},
    "shape": {1: ("dim", "dim*")},
    "dim": {1: ("dim_value", "integer"), 2: ("dim_param", "text")},
}
"""Messages: their fields by number, as a name and a type. What ends in * comes any number of times."""


class Message:
    """A message: its fields are attributes; one that is not there is empty, or zero."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __getattr__(self, name: str) -> Any:
        types = dict(KINDS[self.kind].values())
        if name not in types:
            raise AttributeError(name)
        return _empty(types[name])

    def has(self, name: str) -> bool:
        return name in self.__dict__


def _empty(kind: str) -> Any:
    if kind.endswith(("*", "s")) and kind != "bytes":
        return []
    return {"text": "", "integer": 0, "float": 0.0, "bytes": b""}[kind] if kind not in KINDS else Message(kind)


def decode(data: View, message: Message) -> Message:
    """Read a message's fields from its bytes.

    Raises:
        ValueError: the bytes are no such message.
        FileError: it holds more than any net.
    """
    known, fields = KINDS[message.kind], message.__dict__
    at, end, count = 0, len(data), 0
    while at < end:
        count += 1
        if count > MOST_FIELDS:
            raise ValueError(f"more than {MOST_FIELDS:,} fields in one message")
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 2:
            size, start = varint(data, at)
            at = start + size
            value = data[start:at]
        elif wire == 0:
            value, at = varint(data, at)
        elif wire in SIZES:
            start, at = at, at + SIZES[wire]
            value = data[start:at]
        else:
            raise ValueError(f"a field of the type {wire}")
        if at > end:
            raise ValueError("a field goes on beyond its message")
        if number in known:
            name, kind = known[number]
            if wire not in WIRES.get(kind, (2,)):
                raise ValueError(f"{name} is of another type")
            _enter(fields, name, kind, value, wire)
    return message


def _enter(fields: dict[str, Any], name: str, kind: str, value: Any, wire: int) -> None:
    """Keep the value of a field: the last one, or all of them."""
    if kind == "text":
        fields[name] = str(value, "utf-8")
    elif kind == "text*":
        fields.setdefault(name, []).append(str(value, "utf-8"))
    elif kind == "integer":
        fields[name] = _signed(value)
    elif kind == "bytes":
        fields[name] = value
    elif kind == "bytes*":
        fields.setdefault(name, []).append(value)
    elif kind == "integers":
        fields.setdefault(name, []).extend([_signed(value)] if wire == 0 else _integers(value))
    elif kind == "float":
        fields[name] = float(np.frombuffer(value, "<f4")[0])
    elif kind in PACKED:
        fields.setdefault(name, []).extend(np.frombuffer(value, PACKED[kind]).tolist())
    elif kind.endswith("*"):
        made = fields.setdefault(name, [])
        if len(made) >= MOST_MESSAGES:
            raise FileError(f"has more than {MOST_MESSAGES:,} {name}s, as no net has")
        made.append(decode(value, Message(kind[:-1])))
    else:
        fields[name] = decode(value, fields.get(name) or Message(kind))


def varint(data: View, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place behind it."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    for place in range(at, min(at + 10, len(data))):
        byte = data[place]
        if byte < 0x80:
            return value | byte << shift, place + 1
        value |= (byte & 0x7F) << shift
        shift += 7
    raise ValueError("a number without an end")


def _signed(value: int) -> int:
    """64 bits as a number that may be negative."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _integers(data: View) -> list[int]:
    """Varints in a row."""
    raw = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(raw < 0x80)
    if raw.size and (not last.size or last[-1] != raw.size - 1):
        raise ValueError("a number without an end")
    first = np.concatenate([[0], last + 1])[:-1] if raw.size else last
    place = np.arange(raw.size) - np.repeat(first, last - first + 1)
    parts = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, first).view(np.int64).tolist() if raw.size else []


def message(number: int, data: bytes) -> bytes:
    """A field with a length, as it is written."""
    return _number(number << 3 | 2) + _number(len(data)) + data


def _number(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
