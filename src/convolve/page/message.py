"""Messages between page and server: a header in JSON, and the numbers it speaks of as they lie in memory.

4 bytes      length of the header, little-endian
header       JSON in UTF-8, padded with spaces; "arrays" lists name, dtype, shape and offset of each array
arrays       little-endian, rows first, each at a multiple of 8 bytes behind the header
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convolve.errors import DataError

ALIGNED = 8
DTYPES = ("u1", "i1", "i4", "f4", "f8")
"""Element types that both sides know."""


@dataclass(frozen=True, eq=False)
class Message:
    """What is said, and the arrays that belong to it.

    >>> sent = Message({"ask": "picture"}, {"x": np.arange(3, dtype=np.float32)})
    >>> got = Message.unpack(sent.pack())
    >>> got.header, got.arrays
    ({'ask': 'picture'}, {'x': array([0., 1., 2.], dtype=float32)})
    """

    header: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The message in bytes. Numbers of the header that are not finite become null."""
        listed, parts, offset = [], [], 0
        for name, array in self.arrays.items():
            dtype = f"{array.dtype.kind}{array.dtype.itemsize}"
            if dtype not in DTYPES:
                raise TypeError(f"{name}: arrays of {array.dtype} have no place in a message")
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            data += bytes(-len(data) % ALIGNED)
            listed.append({"name": name, "dtype": dtype, "shape": list(array.shape), "offset": offset})
            parts.append(data)
            offset += len(data)
        text = json.dumps(_finite(self.header | {"arrays": listed}), allow_nan=False, separators=(",", ":"))
        head = text.encode()
        head += b" " * (-(len(head) + 4) % ALIGNED)
        return b"".join([len(head).to_bytes(4, "little"), head, *parts])

    @classmethod
    def unpack(cls, data: bytes) -> Message:
        """The message that bytes from outside hold.

        Raises:
            DataError: they hold none: the header is no JSON object, an array lies outside.
        """
        try:
            start = 4 + int.from_bytes(data[:4], "little")
            header = json.loads(data[4:start])
            listed = header.pop("arrays", [])
            arrays = {str(entry["name"]): _array(data, start, entry) for entry in listed}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"a message that cannot be read: {error}") from None
        return cls(header, arrays)


def _array(data: bytes, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    dtype, shape, offset = entry["dtype"], entry["shape"], entry["offset"]
    sizes = isinstance(shape, list) and all(isinstance(n, int) and 0 <= n < 1 << 31 for n in shape)
    if dtype not in DTYPES or not sizes or not isinstance(offset, int) or offset < 0:
        raise ValueError(f"an array described as {dict(entry)}")
    count = math.prod(shape)
    if start + offset + count * int(dtype[1:]) > len(data):
        raise ValueError("an array that reaches beyond its end")
    return np.frombuffer(data, f"<{dtype}", count, start + offset).reshape(shape)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
