"""Running programs: kernels dispatched, arguments resolved to addresses, one call into native code a run."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from convolve.native.cache import dispatch
from convolve.native.kernels.runtime import LINE
from convolve.native.workers import SCRATCH_BYTES, Table, aligned, pool
from convolve.program import ITEM, At, Buffer, Memory, Program, unpack


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
    """A program ready to run: its kernels in memory, its arguments bound to an arena and to stores."""

    def __init__(self, program: Program, arena: Arena, stores: Mapping[str, np.ndarray]) -> None:
        self.program, self.arena, self.stores = program, arena, stores
        arena.reserve(program.arena_bytes)
        self._tables: dict[bytes, np.ndarray] = {}
        self._slots: dict[Memory, list[tuple[int, int]]] = {}
        values: list[int] = []
        starts: list[int] = []
        for call in program.calls:
            starts.append(len(values))
            for declared in call.spec.arguments:
                values.append(self._value(call.arguments[declared.split(":")[0]], len(values)))
        self._arguments = aligned(max(1, len(values)), np.int64)
        self._arguments[: len(values)] = values
        phases = [call.phase for call in program.calls]
        rows = aligned(4 * len(program.calls), np.int64).reshape(-1, 4)
        for i, call in enumerate(program.calls):
            last = i + 1 == len(phases) or phases[i + 1] != phases[i]
            rows[i] = dispatch(call.spec), self._arguments.ctypes.data + 8 * starts[i], call.pieces, int(last)
        scratch = -(-max([SCRATCH_BYTES, *(call.scratch for call in program.calls)]) // 4096) * 4096
        self.table = Table(rows, aligned(LINE * max(1, len(rows)), np.int64), scratch)
        self._inputs = {m.name: slots for m, slots in self._slots.items() if m.home == "input"}
        for key, buffer in program.stores.items():
            if buffer.memory.home == "store":
                self._bind(buffer.memory, stores[key].ctypes.data)
        self._arena_slots = [
            (slot, m.offset + at) for m, s in self._slots.items() if m.home == "arena" for slot, at in s
        ]
        self._arena_address = 0
        self._views: dict[str, np.ndarray] = {}

    def _value(self, argument: Any, slot: int) -> int:
        if isinstance(argument, At):
            item = ITEM[argument.memory.dtype]
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

    def run(self, inputs: Mapping[str, np.ndarray], threads: int) -> None:
        """Run once. `inputs` are contiguous and of the program's shapes and types."""
        self._prepare(inputs)
        pool().run(self.table, threads)

    def measure(self, inputs: Mapping[str, np.ndarray], threads: int) -> list[float]:
        """Run once, call by call; the seconds of each. Between calls the threads meet, so the sum is above a run's."""
        self._prepare(inputs)
        seconds = []
        for i in range(len(self.table.rows)):
            row = self.table.rows[i : i + 1].copy()
            row[0, 3] = 1
            single = Table(row, self.table.counters, self.table.scratch)
            began = time.perf_counter()
            pool().run(single, threads)
            seconds.append(time.perf_counter() - began)
        return seconds

    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> None:
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
        else:
            flat = self.arena.memory[memory.offset : memory.offset + memory.size * 4].view(np.float32)
        if buffer.panels:
            return flat[: memory.size]
        steps = tuple(4 * s for s in buffer.strides)
        return np.lib.stride_tricks.as_strided(flat[buffer.start :], buffer.shape, steps)
