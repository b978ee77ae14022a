"""Linked programs: all that running one takes, in numbers, but for the addresses. What can be kept on disk.

The arguments of all calls, and the rows that threads walk, are 64-bit words in one array; where an address belongs, a
slot says so: of which region, and how far from its beginning. Regions are their own words and tables, the arena,
the kernels, and arrays that others own.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from convolve.native.cache import dispatch_all, name_of
from convolve.program import ITEM, At, Buffer, Call, Memory, Program

Region = tuple[str, str]
"""A home and a name: ("kernel", its name on disk), ("store", key), ("input", name), ("prepared", what it holds)."""
WORDS, TABLES, ARENA = ("own", "words"), ("own", "tables"), ("arena", "")
ALIGN = 64
FORMAT = 1


@dataclass(frozen=True)
class Place:
    """Where a named result or an array lies: its region, its buffer's numbers."""

    region: Region
    offset: int
    size: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    panels: int
    dtype: str

    @classmethod
    def of(cls, buffer: Buffer, region: Region) -> Place:
        memory = buffer.memory
        offset = max(0, memory.offset) if memory.home == "arena" else 0
        numbers = (buffer.shape, buffer.strides, buffer.start, buffer.panels)
        return cls(region, offset, memory.size, *numbers, memory.dtype)


@dataclass(frozen=True, eq=False)
class LinkedProgram:
    """A program without addresses.

    `slots` are rows (word, region, distance in bytes), in the order of the regions; `rows` says where in the words the
    rows of the preparation and of the calls begin, and how many these are.
    """

    words: np.ndarray
    tables: np.ndarray
    slots: np.ndarray
    regions: tuple[Region, ...]
    rows: tuple[tuple[int, int, int], ...]
    """(first word, number, bytes of scratch) of the preparation, and of the calls."""
    outputs: dict[str, Place]
    stores: dict[str, Place]
    prepared: dict[str, int]
    """Floats that each of what is prepared takes."""
    arena_bytes: int
    changes: bool

    @classmethod
    def of(cls, program: Program) -> LinkedProgram:
        """Link a program; its kernels are made where they are not there yet."""
        return _Linker(program).linked()

    def to_bytes(self) -> bytes:
        """As files hold it: a line of JSON, then the arrays."""
        plain = {name: getattr(self, name) for name in ("regions", "rows", "prepared", "arena_bytes", "changes")}
        plain |= {name: {k: vars(p) for k, p in getattr(self, name).items()} for name in ("outputs", "stores")}
        plain |= {"format": FORMAT, "sizes": [len(self.words), len(self.slots)]}
        arrays = (self.words, self.slots, self.tables)
        return json.dumps(plain, sort_keys=True).encode() + b"\n" + b"".join(a.tobytes() for a in arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> LinkedProgram | None:
        """What `to_bytes` wrote; None where it is of another format."""
        text, _, rest = data.partition(b"\n")
        plain = json.loads(text)
        if plain.pop("format") != FORMAT:
            return None
        words, slots = plain.pop("sizes")
        for name in ("outputs", "stores"):
            plain[name] = {key: _place(told) for key, told in plain[name].items()}
        plain["regions"] = tuple((home, name) for home, name in plain["regions"])
        plain["rows"] = tuple((a, b, c) for a, b, c in plain["rows"])
        numbers = np.frombuffer(rest, np.int64, words + 3 * slots)
        tables = np.frombuffer(rest, np.uint8, offset=numbers.nbytes)
        return cls(numbers[:words], tables, numbers[words:].reshape(-1, 3), **plain)


def _place(told: dict[str, Any]) -> Place:
    lists = {name: tuple(told[name]) for name in ("region", "shape", "strides")}
    return Place(**(told | lists))


class _Linker:
    """A program that is being linked."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.words: list[int] = []
        self.slots: list[tuple[int, int, int]] = []
        self.regions: dict[Region, int] = {WORDS: 0, TABLES: 1, ARENA: 2}
        self.tables = bytearray()
        self._known: dict[bytes, int] = {}
        self._prepared = identities(program)
        self._names = {buffer.memory: key for key, buffer in program.stores.items() if buffer.memory.home == "store"}

    def linked(self) -> LinkedProgram:
        program = self.program
        calls = [*program.preparation, *program.calls]
        dispatch_all(c.spec for call in calls for c in (call, *(c for piece in call.stages for c in piece)))
        rows = tuple(self._rows(calls) for calls in (program.preparation, program.calls))
        outputs = {name: self._placed(buffer) for name, buffer in program.outputs.items()}
        stores = {key: self._placed(b) for key, b in program.stores.items() if b.memory.home == "store"}
        prepared = {
            self._prepared[m]: m.bytes // ITEM[m.dtype]
            for call in program.preparation
            for m in call.writes
            if m.home == "prepared"
        }
        slots = np.array(sorted(self.slots, key=lambda slot: slot[1]), np.int64).reshape(-1, 3)
        return LinkedProgram(
            np.array(self.words, np.int64),
            np.frombuffer(bytes(self.tables), np.uint8),
            slots,
            tuple(self.regions),
            rows,
            outputs,
            stores,
            prepared,
            program.arena_bytes,
            program.changes,
        )

    def _placed(self, buffer: Buffer) -> Place:
        return Place.of(buffer, self._region(buffer.memory))

    def _region(self, memory: Memory) -> Region:
        if memory.home == "arena":
            return ARENA
        if memory.home == "prepared":
            return "prepared", self._prepared[memory]
        return memory.home, self._names[memory] if memory.home == "store" else memory.name

    def _refer(self, region: Region, distance: int) -> int:
        """A word that will be an address."""
        number = self.regions.setdefault(region, len(self.regions))
        self.slots.append((len(self.words), number, distance))
        return 0

    def _rows(self, calls: Sequence[Call]) -> tuple[int, int, int]:
        """Lay down the arguments of calls, and behind them the rows that workers walk."""
        places = [self._call(call) for call in calls]
        self.words += [0] * (-len(self.words) % (ALIGN // 8))
        first = len(self.words)
        for i, (call, place) in enumerate(zip(calls, places, strict=True)):
            last = i + 1 == len(calls) or calls[i + 1].phase != call.phase
            self._append(("kernel", name_of(call.spec)), 0)
            self._append(WORDS, 8 * place)
            self.words += [call.pieces, int(last)]
        return first, len(calls), max((call.scratch for call in calls), default=0)

    def _append(self, region: Region, distance: int) -> None:
        self.words.append(self._refer(region, distance))

    def _call(self, call: Call) -> int:
        """Lay down a call's arguments, those of its stages before them; gives the first word of them."""
        arguments: dict[str, Any] = dict(call.arguments)
        for i, pieces in enumerate(zip(*call.stages, strict=True)):
            spec, given = pieces[0].spec, pieces[0].arguments
            names = [declared.split(":")[0] for declared in spec.arguments]
            local = [isinstance(a, At) and a.memory.home == "scratch" for a in (given[name] for name in names)]
            blocks = [self._call(piece) for piece in pieces]
            arguments |= {
                f"kernel{i}": (("kernel", name_of(spec)), 0),
                f"blocks{i}": (WORDS, 8 * blocks[0]),
                f"size{i}": len(names),
                f"slot{i}": local.index(True),
            }
        start = len(self.words)
        for declared in call.spec.arguments:
            self._argument(arguments[declared.split(":")[0]])
        return start

    def _argument(self, argument: Any) -> None:
        if isinstance(argument, At):
            distance = argument.index * ITEM[argument.memory.dtype]
            if argument.memory.home == "scratch":
                self.words.append(distance)
            else:
                offset = argument.memory.offset if argument.memory.home == "arena" else 0
                self._append(self._region(argument.memory), offset + distance)
        elif isinstance(argument, np.ndarray):
            self._append(TABLES, self._table(argument))
        elif isinstance(argument, tuple):
            self._append(*argument)
        elif isinstance(argument, float):
            self.words.append(int.from_bytes(struct.pack("<f", argument), "little"))
        else:
            self.words.append(int(argument))

    def _table(self, array: np.ndarray) -> int:
        """Where a table lies among the tables: equal ones once."""
        content = array.tobytes()
        place = self._known.get(content)
        if place is None:
            self.tables += bytes(-len(self.tables) % ALIGN)
            place = self._known[content] = len(self.tables)
            self.tables += content
        return place


def identities(program: Program) -> dict[Memory, str]:
    """What each memory that is prepared holds: a digest of the calls that make it, down to the stores."""
    names = {buffer.memory: key.encode() for key, buffer in program.stores.items()}
    made: dict[Memory, list[bytes]] = {}
    for call in program.preparation:
        parts: list[bytes] = [repr((call.spec, call.pieces)).encode()]
        for name, argument in sorted(call.arguments.items()):
            if isinstance(argument, At):
                parts += [name.encode(), *made.get(argument.memory, [names.get(argument.memory, b"")])]
                parts.append(str(argument.index).encode())
            elif isinstance(argument, np.ndarray):
                parts += [name.encode(), argument.tobytes()]
            else:
                parts.append(f"{name}={argument!r}".encode())
        digest = sha256(b"\0".join(parts)).digest()
        for memory in call.writes:
            made.setdefault(memory, []).append(digest)
    return {memory: sha256(b"".join(digests)).hexdigest() for memory, digests in made.items()}
