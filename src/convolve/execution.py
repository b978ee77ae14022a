"""Running programs: kernels dispatched, arguments resolved to addresses, one call into native code a run."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, MutableMapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from convolve.native.cache import dispatch
from convolve.native.job import LINE
from convolve.native.workers import SCRATCH_BYTES, Table, aligned, pool
from convolve.program import ITEM, At, Buffer, Call, Memory, Program, unpack


class Arena:
    """Memory that all programs of a network share, one run at a time."""

    def __init__(self) -> None:
        self.memory, self.address = aligned(0), 0
        self.poison = False

    def reserve(self, size: int) -> None:
        """Grow to at least `size` bytes."""
        if self.memory.nbytes < size:
            self.memory = aligned(0)
            self.memory = aligned(size, alignment=4096)
            self.address = int(self.memory.ctypes.data)


class Executable:
    """A program ready to run: its kernels in memory, its arguments bound to an arena and to stores.

    `prepared` holds what programs made of stores alone, by what it is: those that need the same share it.
    """

    def __init__(
        self,
        program: Program,
        arena: Arena,
        stores: Mapping[str, np.ndarray],
        prepared: MutableMapping[bytes, np.ndarray] | None = None,
    ) -> None:
        self.program, self.arena, self.stores = program, arena, stores
        self.changes = program.changes
        arena.reserve(program.arena_bytes)
        self._tables: dict[bytes, np.ndarray] = {}
        self._slots: dict[Memory, list[tuple[int, int]]] = {}
        calls = [*program.preparation, *program.calls]
        everything = [c for call in calls for c in (call, *(c for piece in call.stages for c in piece))]
        count = sum(len(c.spec.arguments) for c in everything)
        self._arguments, self._used = aligned(max(1, count), np.int64), 0
        places = [self._place(call) for call in calls]
        first = len(program.preparation)
        self.preparation = _table(program.preparation, places[:first])
        self.table = _table(program.calls, places[first:])
        self._inputs = {m.name: slots for m, slots in self._slots.items() if m.home == "input"}
        for key, buffer in program.stores.items():
            if buffer.memory.home == "store":
                self._bind(buffer.memory, stores[key].ctypes.data)
        self._prepared = self._share({} if prepared is None else prepared)
        for memory, array in self._prepared.items():
            self._bind(memory, array.ctypes.data)
        self._version: int | None = None
        self._arena_slots = [
            (slot, m.offset + at) for m, s in self._slots.items() if m.home == "arena" for slot, at in s
        ]
        self._arena_address = 0
        self._views: dict[str, np.ndarray] = {}

    def _share(self, known: MutableMapping[bytes, np.ndarray]) -> dict[Memory, np.ndarray]:
        """The arrays of what is prepared: another program's where that prepares the same."""
        names = _identities(self.program)
        result = {}
        for memory in self._slots:
            if memory.home == "prepared":
                array = known.get(names[memory])
                if array is None:
                    array = known[names[memory]] = aligned(memory.bytes // ITEM[memory.dtype], np.float32)
                result[memory] = array
        return result

    def _place(self, call: Call) -> int:
        """Lay down a call's arguments, those of its stages before them; gives their address."""
        arguments = dict(call.arguments)
        for i, pieces in enumerate(zip(*call.stages, strict=True)):
            spec, given = pieces[0].spec, pieces[0].arguments
            names = [declared.split(":")[0] for declared in spec.arguments]
            local = [isinstance(a, At) and a.memory.home == "scratch" for a in (given[name] for name in names)]
            blocks = [self._place(piece) for piece in pieces]
            arguments |= {
                f"kernel{i}": dispatch(spec),
                f"blocks{i}": blocks[0],
                f"size{i}": len(names),
                f"slot{i}": local.index(True),
            }
        start = self._used
        for declared in call.spec.arguments:
            self._arguments[self._used] = self._value(arguments[declared.split(":")[0]], self._used)
            self._used += 1
        return int(self._arguments.ctypes.data) + 8 * start

    def _value(self, argument: Any, slot: int) -> int:
        if isinstance(argument, At):
            item = ITEM[argument.memory.dtype]
            if argument.memory.home == "scratch":
                return argument.index * item
            self._slots.setdefault(argument.memory, []).append((slot, argument.index * item))
            return 0
        if isinstance(argument, np.ndarray):
            key = argument.dtype.str.encode() + argument.tobytes()
            table = self._tables.get(key)
            if table is None:
                table = self._tables[key] = aligned(argument.size, argument.dtype.type)
                table[:] = argument.ravel()
            return int(table.ctypes.data)
        if isinstance(argument, float):
            return int.from_bytes(struct.pack("<f", argument), "little")
        return int(argument)

    def _bind(self, memory: Memory, address: int) -> None:
        for slot, at in self._slots.get(memory, ()):
            self._arguments[slot] = address + at

    def run(self, inputs: Mapping[str, np.ndarray], threads: int, version: int = 0) -> None:
        """Run once. `inputs` are contiguous and of the program's shapes and types.

        What is made of stores alone is made anew where `version` is another than the last time.
        """
        self._bind_run(inputs)
        if self._version != version:
            if self.program.preparation:
                pool().run(self.preparation, threads)
            self._version = version
        self._spoil()
        pool().run(self.table, threads)

    def measure(self, inputs: Mapping[str, np.ndarray], threads: int) -> list[float]:
        """Run once, call by call; the seconds of each. Between calls the threads meet, so the sum is above a run's."""
        self._bind_run(inputs)
        seconds = []
        for i in range(len(self.table.rows)):
            row = self.table.rows[i : i + 1].copy()
            row[0, 3] = 1
            single = Table(row, self.table.counters, self.table.scratch)
            began = time.perf_counter()
            pool().run(single, threads)
            seconds.append(time.perf_counter() - began)
        return seconds

    def _bind_run(self, inputs: Mapping[str, np.ndarray]) -> None:
        address = self.arena.address
        if address != self._arena_address:
            for slot, at in self._arena_slots:
                self._arguments[slot] = address + at
            self._arena_address = address
            self._views.clear()
        for name, array in inputs.items():
            at = array.ctypes.data
            for slot, offset in self._inputs.get(name, ()):
                self._arguments[slot] = at + offset

    def _spoil(self) -> None:
        if self.arena.poison:
            self.arena.memory[: self.arena.memory.size // 4 * 4].view(np.float32)[:] = np.nan

    def output(self, name: str) -> np.ndarray:
        """A copy of a named result, a weight's panels unpacked."""
        buffer = self.program.outputs[name]
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = self._view(buffer)
        return unpack(view, buffer.shape, buffer.panels) if buffer.panels else view.copy()

    def _view(self, buffer: Buffer) -> np.ndarray:
        """Where a buffer lies, seen as an array; a weight's panels flat."""
        memory = buffer.memory
        if memory.home == "store":
            flat = next(self.stores[key] for key, b in self.program.stores.items() if b.memory is memory)
        elif memory.home == "prepared":
            flat = self._prepared[memory]
        else:
            flat = self.arena.memory[memory.offset : memory.offset + memory.size * 4].view(np.float32)
        if buffer.panels:
            return flat[: memory.size]
        steps = tuple(4 * s for s in buffer.strides)
        return np.lib.stride_tricks.as_strided(flat[buffer.start :], buffer.shape, steps)


def _table(calls: Sequence[Call], places: Sequence[int]) -> Table:
    """The rows that workers run, given where each call's arguments lie."""
    rows = aligned(4 * len(calls), np.int64).reshape(-1, 4)
    for i, (call, place) in enumerate(zip(calls, places, strict=True)):
        last = i + 1 == len(calls) or calls[i + 1].phase != call.phase
        rows[i] = dispatch(call.spec), place, call.pieces, int(last)
    scratch = -(-max([SCRATCH_BYTES, *(call.scratch for call in calls)]) // 4096) * 4096
    return Table(rows, aligned(LINE * max(1, len(rows)), np.int64), scratch)


def _identities(program: Program) -> dict[Memory, bytes]:
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
    return {memory: b"".join(digests) for memory, digests in made.items()}
